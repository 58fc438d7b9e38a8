"""The data of a run: its packed form, and the checks that refuse data on which a run would fail only later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import PackedDataset, PackedMeta, known_data_sets, prepare
from ..data.catalog import table_schema
from ..data.encoder.memory import column_names
from ..data.encoder.run_folder import read_encoding
from ..data.inspect.base_rates import label_warnings
from ..data.inspect.oov import BLOCK_ROWS, id_shares, lost_fields
from ..data.packed.arrays import Progress, no_progress
from ..data.packed.remote import is_remote
from ..data.schema.table import TableSchema
from ..errors import ConfigError, DataError
from ..support import strict_json
from ..support.files import scratch_folder
from ..support.model_inputs import check_negative_rate
from .config import RunConfig, no_conditionals
from .folder.layout import RunFolder

MORE_ROWS = "hold out more rows: by valid_fraction, or by `split` or `files` in the schema"


def prepare_data(config: RunConfig, encoding: Mapping[str, Any] | None = None, progress: Progress = no_progress) -> PackedDataset:
    """The packed data set of a configuration, encoded on first use: by ``encoding``, that of another data set, if it is given."""
    chosen: dict[str, Any] = {"seed": config.split_seed, "valid_fraction": config.valid_fraction, "encoding": encoding}
    return prepare(config.data, **chosen, progress=progress)


def is_table(data: Any) -> bool:
    """Whether this is a table in memory, or the path of one."""
    is_path = isinstance(data, (str, os.PathLike))
    return not isinstance(data, (PackedDataset, type(None))) and (not is_path or str(data).endswith((".parquet", ".csv", ".csv.gz")))


def data_to_evaluate(
    config: RunConfig, folder: RunFolder, about: Mapping[str, Any], data: Any, progress: Progress = no_progress
) -> PackedDataset:
    """The data of a run, or other ``data`` as :func:`dcrnn_fast.training.evaluate` takes it, encoded as the run's was.

    ``about`` describes the run's weights. Raises :class:`DataError` for a run of a table in memory without ``data``, for data encoded in
    another way, and as :func:`dcrnn_fast.data.prepare` does.
    """
    if isinstance(data, PackedDataset):
        if strict_json.json_digest(data.meta.encoding) != about["encoding"]:
            raise DataError(f"data is not encoded as that of {folder.root} was: give prepare the meta.encoding of that, as encoding=")
        return data
    if is_table(data):
        return _labelled_rows(config, folder, data, read_encoding(folder.encoder, about), progress)
    if data is None and not (config.data in known_data_sets() or is_remote(config.data) or os.path.exists(config.data)):
        raise DataError(
            f"the data of {folder.root}, {config.data!r}, is not there: a run holds no rows, and a table in memory is gone. Give a table "
            "with the labels: --data ROWS.parquet, or data=DATAFRAME in Python"
        )
    if data is None and is_remote(config.data) and "?" in config.data:  # of a run that somebody gave you it may lead anywhere
        raise DataError(f"the data of {folder.root} lies at {config.data}; name that address, --data, to fetch it from there")
    own = data is None and config.init is None
    config = config if data is None else config.model_copy(update={"data": str(data)})
    return prepare_data(config, None if own else read_encoding(folder.encoder, about), progress)


def _labelled_rows(config: RunConfig, folder: RunFolder, table: Any, encoding: Mapping[str, Any], progress: Progress) -> PackedDataset:
    """The rows of a table as test rows, which a person reads of as "given", read by the schema of the run's data."""
    try:
        schema, _ = table_schema(folder.schema if folder.schema.is_file() else config.data)
    except DataError as error:
        raise DataError(f"data is a table, which the schema of {folder.root} is to read: {error}") from error
    if schema.histories and not folder.past.is_file():
        rest = "rest on earlier rows, which the run does not keep"
        raise DataError(f"data is a table, and {folder.root} reads histories, which {rest}: give a schema, whose `past` names them")
    if isinstance(table, (str, os.PathLike)) and not glob(str(table)):
        raise DataError(f"data: there is no file {table} on this machine")
    if not config.loss.sample_weight or schema.weight not in _columns_of(table, schema):
        schema = schema.model_copy(update={"weight": None})  # metrics count rows
    dataset = encoded_rows(schema, table, encoding, folder.past, "data", progress)
    if not len(rows := dataset.split("test")):
        raise DataError("has no rows; give a table of rows with their labels", table="data")
    return replace(dataset, splits={**dataset.splits, "test": replace(rows, name="given")})


def _columns_of(table: Any, schema: TableSchema) -> list[str]:
    """The names of the columns of a table, or of its first file; none of one that cannot be read."""
    if not isinstance(table, (str, os.PathLike)):
        return column_names(table)
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..data.read.csv_files import CsvFile
    from ..data.read.row_files import expand
    from ..data.read.text_queries import open_database

    path = expand("data:", Path(table))[0]
    if path.suffix == ".parquet":
        with suppress(pa.ArrowException, OSError):
            return list(pq.read_schema(path).names)
        return []
    with scratch_folder() as folder:
        return CsvFile(path, schema.csv, (), folder, open_database(folder)).columns


def encoded_rows(
    schema: TableSchema, table: Any, encoding: Mapping[str, Any], past: Path, name: str, progress: Progress = no_progress
) -> PackedDataset:
    """The rows of a table, which messages call ``name``, as test rows; their histories go on from the rows in the file ``past``."""
    import pyarrow as pa

    from ..data.past import read_rows, with_all_columns

    tables = {"train": with_all_columns(pa.table({}), schema), "test": table}
    if schema.histories:
        tables["past"] = with_all_columns(read_rows(past), schema)
    try:
        with scratch_folder() as cache:  # its arrays are mapped, and go with the last reader
            return prepare(schema, tables, cache_dir=cache, encoding=encoding, progress=progress)
    except DataError as error:
        error.table = name if error.table == "tables[test]" else error.table
        raise


def check_rows(config: RunConfig, dataset: PackedDataset, *, needs_test: bool = True) -> None:
    """Refuse data on which a run would fail only after hours.

    Raises :class:`DataError` for a split without rows, and for train rows without a label or, under the relation chain, with a broken
    funnel; :class:`ConfigError` for validation rows on which the monitored metric is undefined, for weighted rows without a weight
    column, and for a ``negative_rate`` of several tasks, or a ``loss.cvr``, without a chain.
    """
    name = dataset.meta.name
    tasks, relation = dataset.meta.tasks, config.model.relation or dataset.meta.relation
    try:
        check_negative_rate(config.negative_rate or 1.0, len(tasks), relation)
    except ValueError as error:
        raise ConfigError(
            f"{error}; {name} has the tasks {', '.join(tasks)}. Set model.relation=chain if they are a funnel, or leave negative_rate null"
        ) from error
    if config.loss.cvr != "entire_space" and (relation != "chain" or len(tasks) < 2):
        found = f"the relation of {name} is {relation!r}" if relation != "chain" else f"{name} has the task {tasks[0]} alone"
        raise ConfigError(no_conditionals(config.loss.cvr, found))
    if config.loss.sample_weight and not dataset.meta.has_weight:
        raise ConfigError(
            f"loss.sample_weight is true, but {name} has no weight column; name one as `weight` in the schema, or set it to false"
        )
    for split in ("train", "valid", *(["test"] if needs_test else [])):
        if not len(dataset.split(split)):
            remedy = MORE_ROWS if split == "valid" else "correct `files` or `split` in its schema"
            raise DataError(f"{name} has no {split} rows; {remedy}")
    of_weight = " or has the weight 0" if config.loss.sample_weight else ""
    if np.isnan(_counted_labels(dataset, "train", config)).all():
        raise DataError(f"{name}: every label of the train rows is unknown{of_weight}; correct `tasks` in its schema")
    if relation == "chain" and config.loss.strict_funnel:
        _check_funnel(dataset)
    labels = _counted_labels(dataset, "valid", config)
    positive, negative = (labels == 1).any(axis=0), (labels == 0).any(axis=0)
    monitor = config.early_stopping.monitor
    if not (positive | negative).any():
        raise ConfigError(
            f"early_stopping.monitor is {monitor!r}, but every label of the validation rows of {name} is unknown{of_weight}; "
            f"{MORE_ROWS}, with labels"
        )
    if monitor == "auc" and not (positive & negative).any():
        raise ConfigError(
            "early_stopping.monitor is 'auc', which no task has on the validation rows (one class only); "
            f"use log_loss, or {MORE_ROWS}, of both classes"
        )


def _counted_labels(dataset: PackedDataset, split: str, config: RunConfig) -> npt.NDArray[Any]:
    """The labels [N, T] of the rows of a split that a run counts: all, or those with a weight."""
    rows = dataset.split(split)
    labels = np.asarray(rows.labels)
    return labels[np.asarray(rows.weight) > 0] if config.loss.sample_weight else labels


def _check_funnel(dataset: PackedDataset) -> None:
    rows, tasks = dataset.split("train"), dataset.meta.tasks
    broken, example = 0, ""
    for start in range(0, len(rows), BLOCK_ROWS):
        labels = np.asarray(rows.labels[start : start + BLOCK_ROWS])
        # The least of all known labels before: an unknown label between two known ones must not hide a broken funnel.
        least = np.minimum.accumulate(np.nan_to_num(labels, nan=1.0), axis=1)[:, :-1]
        found = np.argwhere(labels[:, 1:] > least)
        broken += len(np.unique(found[:, 0]))
        if len(found) and not example:
            row, later = found[0][0], found[0][1] + 1
            earlier = np.flatnonzero(labels[row, :later] == least[row, later - 1])[-1]
            events = (f"{tasks[task]}={labels[row, task]:g}" for task in (later, earlier))
            example = f"the first is row {start + row + 1:,}, with {' and '.join(events)}"
    if broken:
        raise DataError(
            f"{dataset.meta.name}: {broken:,} of the {len(rows):,} train rows break the funnel {' -> '.join(tasks)}; {example}. Under "
            "model.relation: chain a later event implies the earlier one: correct the labels, choose --set model.relation=independent, or "
            "train on the labels as they are with --set loss.strict_funnel=false"
        )


def check_same_columns(about: Mapping[str, Any], meta: PackedMeta, fields: list[Any], weights: str | Path, use: str) -> None:
    """Raise :class:`DataError` if data has other tasks, ``fields`` or dense columns than ``about`` says of the weights' data."""
    now = {"tasks": list(meta.tasks), "fields": fields, "dense": list(meta.dense), "pooled": meta.pooled, "shared": meta.shared}
    for key, value in now.items():
        if about[key] != value:
            raise DataError(f"{weights} was trained with {key} {about[key]}, but {meta.name} has {value}; {use} data of the same columns")


def evaluation_warnings(
    about: Mapping[str, Any], dataset: PackedDataset, split: str, metrics: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What spoils the metrics of a split's rows: fields that are lost there and were not in the run's training rows, labels of one class.

    ``about`` is the description of the run's model.
    """
    rows, meta = dataset.split(split), dataset.meta
    lines = lost_fields(about["id_shares"], id_shares(rows, meta), rows.name, len(rows))
    for task in meta.tasks:
        lines += label_warnings(task, rows.name, metrics[task]["rows"], metrics[task]["positives"])
    return lines
