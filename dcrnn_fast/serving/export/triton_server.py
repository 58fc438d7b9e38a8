"""A model's folder in a model repository of NVIDIA's Triton Inference Server, whose backend ONNX Runtime computes it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import DataError
from ...support.files import path_of, sync

MAX_BATCH = 10_000
"""The most rows of a request, and of requests that the server joins."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def model_folder(name: str, value: object) -> Path:
    """The path of a model's folder to write, whose name is the model's.

    Raises TypeError or ValueError for what is no path, and DataError for a name that the server may not know as one, for a folder that is
    there, and where its parent is none.
    """
    path = path_of(name, value)
    if not _NAME.fullmatch(path.name):
        raise DataError(f"{name} {path}: its last part is the model's name, expected letters, digits, _ - . (such as models/shop)")
    if os.path.lexists(path):
        raise DataError(f"{name} {path} is there already, and is not replaced; name another model, or delete it")
    if not path.parent.is_dir():
        raise DataError(f"{name} {path}: expected a path in a model repository, a folder that exists")
    return path


def config(model: str, fields: int, dense: int, names: Sequence[str]) -> str:
    """``config.pbtxt`` of a model with so many columns of ids and dense columns; ``names`` are the scores'.

    >>> from dcrnn_fast.serving.export.triton_server import config
    >>> print(config("shop", 3, 0, ["click"]))  # doctest: +ELLIPSIS
    name: "shop"
    backend: "onnxruntime"
    max_batch_size: 10000
    dynamic_batching { }
    input [
      { name: "ids", data_type: TYPE_INT64, dims: [ 3 ] }
    ]
    output [
      { name: "click", data_type: TYPE_FP32, dims: [ 1 ], reshape { shape: [ ] } }
    ]
    <BLANKLINE>
    """
    inputs = [f'{{ name: "ids", data_type: TYPE_INT64, dims: [ {fields} ] }}']
    inputs += [f'{{ name: "dense", data_type: TYPE_FP32, dims: [ {dense} ] }}'] if dense else []
    # Dimensions are those without the rows, and the server knows no empty list of them: a score's file has none, a reply has one.
    outputs = [f"{{ name: {json.dumps(name)}, data_type: TYPE_FP32, dims: [ 1 ], reshape {{ shape: [ ] }} }}" for name in names]
    return "\n".join(
        [
            f'name: "{model}"',
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH}",
            "dynamic_batching { }",
            "input [",
            "  " + ",\n  ".join(inputs),
            "]",
            "output [",
            "  " + ",\n  ".join(outputs),
            "]",
            "",
        ]
    )


def write_model_folder(folder: Path, onnx: Path, config: str, texts: Mapping[str, str]) -> None:
    """Write ``config.pbtxt``, ``1/model.onnx`` and the texts into a new folder, which appears when all is written.

    Raises DataError where the system refuses.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (beside / "1").mkdir(parents=True)
        shutil.copyfile(onnx, beside / "1" / "model.onnx")
        for name, text in {"config.pbtxt": config, **texts}.items():
            (beside / name).write_text(text, encoding="utf-8")
        for path in (*beside.rglob("*"), beside):
            sync(path)
        os.rename(beside, folder)
        sync(folder.parent)
    except OSError as error:
        raise DataError(f"output {folder} cannot be written: {error.strerror or error}; name another path, or make room there") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
