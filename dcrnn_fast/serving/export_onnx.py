"""Writes a model's graph as ONNX, and scores with it by ONNX Runtime. Needs the extra ``onnx``."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..errors import ExportError, MissingExtra

OPSET = 18
"""The version of ONNX's operators."""
INPUTS = ("ids", "dense")
ROWS = "rows"
"""The name of the dimension of the rows."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_BYTES = 1_900_000_000
"""The most bytes of weights: an ONNX file in one part holds 2 GB."""


def check_packages() -> None:
    """Raise MissingExtra where a package of the extra ``onnx`` is not installed."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise MissingExtra(f"format onnx needs {', '.join(missing)}; run: pip install 'dcrnn_fast[onnx]'")


def write_onnx(program: ExportedProgram, texts: Mapping[str, str], names: Sequence[str], path: Path) -> None:
    """Write a graph without operators of this package as ONNX, with the texts in ``metadata_props``.

    The inputs are called :data:`INPUTS`, the outputs as in ``names``, and the first dimension of all of them :data:`ROWS`.

    Raises ExportError where the weights are too large, or PyTorch cannot write the graph as ONNX.
    """
    import onnx

    size = sum(weight.nbytes for weight in program.state_dict.values())
    if size > MAX_BYTES:
        raise ExportError(f"the weights take {size / 1e9:.1f} GB, and an ONNX file at most 2 GB; export with --format pt2")
    inputs = INPUTS[: len(program.graph_signature.user_inputs)]
    try:
        with _quiet():
            exported = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, input_names=inputs, output_names=names, external_data=False, verbose=False
            )
        model = exported.model_proto  # type: ignore[union-attr]
    except Exception as error:
        raise ExportError(
            f"PyTorch {torch.__version__} cannot write the model as ONNX: {' '.join(str(error).split())[-300:]}; export with --format pt2"
        ) from error
    _name_rows(model.graph)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph, *model.functions):
        del part.metadata_props[:]  # where the graph came from: lines of code, and files of this machine
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    onnx.helper.set_model_props(model, dict(texts))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def onnx_program(path: Path, names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    """A function of ids and dense that scores with the file, by ONNX Runtime on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def predict(ids: Tensor, dense: Tensor | None) -> dict[str, Any]:
        given = {"ids": ids} if dense is None else {"ids": ids, "dense": dense}
        found = session.run(list(names), {name: value.numpy() for name, value in given.items()})
        return dict(zip(names, found, strict=True))

    return predict


def _name_rows(graph: Any) -> None:
    """Call the dimension of the rows so, which PyTorch calls s and a number."""
    old = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(old)}\b", ROWS, dim.dim_param)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's warnings about packages and functions that have nothing to do with the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
