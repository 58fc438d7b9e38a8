"""What a fitted :class:`~dcrnn_fast.FunnelClassifier` keeps of its run: the files, and the arguments that they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from ..data.catalog import table_schema
from ..data.encoder.memory import arrow_table, column_names
from ..data.encoder.run_folder import read_encoding
from ..data.past import last_values, read_rows
from ..errors import DataError
from ..serving.ranker import Ranker, Scores, as_table
from ..support.files import writing_output
from ..training.config import flat
from ..training.data import encoded_rows
from ..training.folder.layout import RunFolder
from .arguments import names_of

OWN_KEYS = {"data", "init", "seed", "split_seed", "loss.sample_weight"}
"""The keys of a run's configuration that an estimator does not set."""


def files_of(run: RunFolder) -> dict[str, bytes]:
    """By path in a run folder the content of its files, without checkpoints."""
    files = [file for file in run.root.rglob("*") if file.is_file() and run.checkpoints not in file.parents]
    return {str(file.relative_to(run.root)): file.read_bytes() for file in files}


def arguments_of(run: RunFolder, result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a saved run, and the arguments with which an estimator would train it again; ``result`` is what metrics.json holds."""
    schema: dict[str, Any] = yaml.safe_load(run.schema.read_text("utf-8")) if run.schema.is_file() else {}
    arguments = {key: schema.get(key) for key in ("group", "weight", "categorical", "numeric", "histories", "train_only")}
    arguments |= {"time": (schema.get("split") or {}).get("time"), "funnel": schema.get("funnel", False)}
    arguments |= {"tasks": names_of(schema.get("tasks", ())) or [name for name in result["valid"] if "_given_" not in name]}
    config = {key: value for key, value in flat(result["config"]) if key not in OWN_KEYS}
    return schema, arguments | {"random_state": result["config"]["seed"], "config": config}


def without_histories(X: Any, histories: Sequence[str]) -> bool:
    """Whether a table has none of these columns. Raises DataError where it has some of them."""
    columns = column_names(X) or histories
    given = [name for name in histories if name in columns]
    if given and len(given) < len(histories):
        lacking = next(name for name in histories if name not in given)
        both = f"has the history {given[0]!r} and lacks {lacking!r}"
        raise DataError(f"{both}; give all, or none and the columns that they are made from", table="X")
    return not given


def scores_of(ranker: Ranker, run: RunFolder, X: Any) -> Scores:
    """What the ranker says of rows without histories: these are made of the rows that the run keeps, and of the rows themselves."""
    if as_table(X, ranker.encoder) is not X:  # one row
        X = {name: [cell] for name, cell in dict(X).items()}
    schema, _ = table_schema(run.schema)
    schema = schema.model_copy(update={"weight": None, "group": None})
    table = arrow_table(X, "X", set().union(*schema.file_columns()))
    # Without a label, no event of the row is known; a column that is known in training alone is a constant below.
    kinds = {task.column: pa.float64() for task in schema.tasks} | dict.fromkeys(ranker.encoder.constants, pa.string())
    for name in kinds.keys() - {*table.column_names}:
        table = table.append_column(name, pa.nulls(len(table), kinds[name]))
    rows = encoded_rows(schema, table, read_encoding(run.encoder, None), run.past, "X").split("test")
    ids, dense = np.array(rows.ids, np.int64), None if rows.dense is None else np.array(rows.dense)
    for field, id_ in ranker.encoder.constants.items():
        ids[:, list(ranker.encoder.num_embeddings).index(field)] = id_
    if ranker.encoder.watch is not None and len(ids):
        ranker.encoder.watch(ids, np.zeros((len(ids), 0), np.float32) if dense is None else dense, [], False)
    return ranker.predict_encoded(torch.from_numpy(ids), None if dense is None else torch.from_numpy(dense))


def write_histories(run: RunFolder, folder: Path) -> list[Path]:
    """Write each history's last values after the rows that the run keeps to a Parquet file NAME.parquet in the folder."""
    schema, _ = table_schema(run.schema)
    if not run.past.is_file():
        lacks = "the run keeps no rows of its histories" if schema.histories else "the model has no histories"
        raise DataError(f"{lacks}; fit a FunnelClassifier with histories")
    rows, written = read_rows(run.past), list[Path]()
    folder.mkdir(parents=True, exist_ok=True)
    for history in schema.histories:
        written.append(folder / f"{history.name}.parquet")
        with writing_output("folder", written[-1]) as beside:
            pq.write_table(last_values(rows, schema, history), beside)
    return written
