"""What a fitted :class:`~dcrnn_fast.FunnelClassifier` keeps of its run: the files, the arguments that they say, and validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from ..data import PackedMeta, PackedSplit
from ..data.catalog import table_schema
from ..data.encoder.memory import arrow_table, as_columns
from ..data.encoder.run_folder import read_encoding
from ..data.packed.arrays import no_progress
from ..data.past import last_values, read_rows
from ..errors import DataError
from ..nn.model import DCRNN
from ..serving.ranker import Ranker, Scores, as_table
from ..support.files import writing_output
from ..training.data import encoded_rows
from ..training.evaluate.evaluate import ROWS, OpenRun, importance_of
from ..training.folder.layout import RunFolder
from .arguments import names_of

OWN_KEYS = {"data", "init", "seed", "split_seed", "loss.sample_weight"}
"""The keys of a run's configuration that are no setting of an estimator."""


def files_of(run: Path, *, without: Path | None = None) -> dict[str, bytes]:
    """By path in a run folder the content of its files, but for those in a folder below it."""
    files = [file for file in run.rglob("*") if file.is_file() and (without is None or without not in file.parents)]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def arguments_of(run: RunFolder, result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a saved run, and the arguments with which an estimator would train it again; ``result`` is what metrics.json holds."""
    schema: dict[str, Any] = yaml.safe_load(run.schema.read_text("utf-8")) if run.schema.is_file() else {}
    arguments = {key: schema.get(key) for key in ("group", "weight", "categorical", "numeric", "histories", "train_only")}
    arguments |= {"time": (schema.get("split") or {}).get("time"), "funnel": schema.get("funnel", False)}
    arguments |= {"tasks": names_of(schema.get("tasks", ())) or [name for name in result["valid"] if "_given_" not in name]}
    return schema, arguments | {"random_state": result["config"]["seed"], "config": _by_dotted_keys(result["config"])}


def _by_dotted_keys(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and key != "pretrained":
            found |= _by_dotted_keys(value, f"{before}{key}.")
        elif f"{before}{key}" not in OWN_KEYS:
            found[f"{before}{key}"] = value
    return found


def some_rows(split: PackedSplit) -> PackedSplit:
    """At most 20,000 rows of a split, in memory."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:ROWS])
    ids, labels = np.array(split.ids[chosen]), np.array(split.labels[chosen])
    dense = None if split.dense is None else np.array(split.dense[chosen])
    return PackedSplit("valid", ids=ids, dense=dense, labels=labels, weight=None, group=None)


def falls_of(model: DCRNN, meta: PackedMeta, rows: PackedSplit) -> dict[str, dict[str, float]]:
    """By input and task the fall of the AUC when the input is shuffled among the rows, as `evaluate --importance` measures it."""
    dataset, device = SimpleNamespace(meta=meta, split=lambda name: rows), model.features.embedding.weight.device
    run = SimpleNamespace(dataset=dataset, config=SimpleNamespace(threads=None), model=model, device=device, progress=no_progress)
    return importance_of(cast(OpenRun, run), "valid")[0]


def without_histories(X: Any, histories: Sequence[str]) -> bool:
    """Whether a table has none of these columns. Raises DataError where it has some of them."""
    rows = as_columns(X)
    of_table = getattr(rows, "column_names", getattr(rows, "columns", histories))
    columns = list(rows.keys()) if isinstance(rows, Mapping) or type(rows).__name__ == "Series" else of_table
    given = [name for name in histories if name in columns]
    if given and len(given) < len(histories):
        lacking = next(name for name in histories if name not in given)
        both = f"has the history {given[0]!r} and lacks {lacking!r}"
        raise DataError(f"{both}; give all, or none and the columns of which they are made", table="X")
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
