"""A split's predictions beside its labels, as a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...support.files import writing_output

Array = NDArray[Any]


def write_predictions(path: Path, predictions: Mapping[str, Array], labels: Array, tasks: Sequence[str]) -> None:
    """Write each prediction [N] as float32 under its name, and each task's label as ``{task}_label``: 0, 1 or null where it is unknown.

    The file is Parquet. ``labels`` [N, T] are in the order of ``tasks``. Raises :class:`DataError` if two columns would have one name, or
    if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(values) for name, values in predictions.items()}
    for task, column in zip(tasks, labels.T, strict=True):
        if (name := f"{task}_label") in columns:
            raise DataError(f"predictions {path}: {name} is both a prediction and the label of the task {task}; rename a task")
        unknown = np.isnan(column)
        columns[name] = pa.array(np.where(unknown, 0, column).astype(np.uint8), mask=unknown)
    with writing_output("predictions", path) as beside:
        pq.write_table(pa.table(columns), str(beside))
