"""Writes a model's graph in the formats that PyTorch's own file is not: compiled by AOTInductor, for this kind of CPU or for all with
x86-64-v3; and as ONNX, with which ONNX Runtime scores, and which needs the extra ``onnx``.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ...errors import ConfigError, ExportError
from .archive import NO_ROOM, archive_file, errors_alone
from .package import cpu_kind, missing_here, portable_kind

CPUS = ("native", "portable")
UNLOADABLE = "-fno-gnu-unique"
"""A flag for g++, whose code the system could otherwise not unload: each reload of a server would keep the whole model of before."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "native": {"cpp.march": f"native {UNLOADABLE}"} if platform.machine() == "x86_64" and sys.platform == "linux" else {},
    "portable": {"cpp.simdlen": 256, "cpp.march": f"x86-64-v3 {UNLOADABLE}"},
}
"""Options for AOTInductor, which writes `cpp.march` as it is into the compiler's command."""
OPSET = 18
"""The version of ONNX's operators."""
INPUTS = ("ids", "dense")
ROWS = "rows"
"""The name of the dimension of the rows."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_BYTES = 1_900_000_000
"""The most bytes of weights: an ONNX file in one part holds 2 GB."""


def check_compiler() -> None:
    """Raise ExportError where there is no C++ compiler that PyTorch would use."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        compiler = shutil.which(get_cpp_compiler())
    except (RuntimeError, OSError):
        compiler = None
    if compiler is None:
        raise ExportError(
            "format aoti needs a C++ compiler, and none was found; install g++, name another one in the environment variable CXX, or "
            "export with --format pt2, which needs none"
        )


def kind_of(cpu: str) -> dict[str, Any]:
    """The :func:`cpu_kind` of the CPUs that "native" or "portable" code is for. Raises ConfigError where this machine is none of them."""
    from torch._inductor import config

    kind = cpu_kind() if cpu == "native" else portable_kind()
    if problem := missing_here(kind):
        raise ConfigError(
            f"cpu={cpu!r}: portable code is for Linux on x86-64-v3, and must run here to be compared: {problem}; use 'native'"
        )
    if cpu == "portable" and not hasattr(config.cpp, "march"):
        raise ConfigError(f"cpu='portable': PyTorch {torch.__version__} compiles for its own CPU alone; take 2.13 or later, or 'native'")
    return kind


def write_compiled(program: ExportedProgram, texts: Mapping[str, str], path: Path, cpu: str = "native") -> None:
    """Compile a graph into a .pt2 archive, and add the texts as torch.export.save adds extra files.

    ``cpu`` is "native", all instruction sets of this CPU, or "portable", those of x86-64-v3. Raises ExportError where the compiler fails,
    whose message it holds.
    """
    from torch._inductor import config

    options = _OPTIONS[cpu] if hasattr(config.cpp, "march") else {}  # which PyTorch 2.12 does not have
    try:
        with torch.no_grad(), config.patch(options), archive_file(path) as file:
            torch._inductor.aoti_compile_and_package(program, package_path=file)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise ExportError(
            f"AOTInductor cannot compile the model: {' '.join(str(error).split())[-600:]}; "
            "mend the C++ compiler, or export with --format pt2"
        ) from error
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        for name, text in texts.items():
            archive.writestr(f"{root}/extra/{name}", text)


def write_onnx(program: ExportedProgram, texts: Mapping[str, str], names: Sequence[str], path: Path) -> None:
    """Write a graph without operators of this package as ONNX, with the texts in ``metadata_props``.

    The inputs are called :data:`INPUTS`, the outputs as in ``names``, and the first dimension of all of them :data:`ROWS`.

    Raises ConfigError where a score has the name of an input, and ExportError where the weights are too large, or PyTorch cannot write the
    graph as ONNX.
    """
    import onnx

    size = sum(weight.nbytes for weight in program.state_dict.values())
    if size > MAX_BYTES:
        raise ExportError(f"the weights take {size / 1e9:.1f} GB, and an ONNX file at most 2 GB; export with --format pt2")
    inputs = INPUTS[: len(program.graph_signature.user_inputs)]
    if taken := set(names) & set(inputs):
        raise ConfigError(
            f"the score {min(taken)!r} has the name of an input of the ONNX file; rename the task, or export with --format pt2"
        )
    try:
        with errors_alone("torch.onnx"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages and functions that have nothing to do with the model
            exported = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, external_data=False, verbose=False)
        model = exported.model_proto  # type: ignore[union-attr]
        _name_values(model.graph, inputs, names)
        _name_rows(model.graph)
        _forget_origins(model)
        onnx.helper.set_model_props(model, dict(texts))
        onnx.checker.check_model(model)
    except Exception as error:
        raise ExportError(
            f"PyTorch {torch.__version__} cannot write the model as ONNX: {' '.join(str(error).split())[-300:]}; export with --format pt2"
        ) from error
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


def _name_values(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs their names, and all other values names with a dot, which no task has."""
    ends = dict(zip([value.name for value in (*graph.input, *graph.output)], (*inputs, *outputs), strict=True))

    def renamed(name: str) -> str:
        return ends.get(name, f"value.{name}") if name else name  # an input that a node lacks has no name

    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = renamed(value.name)
    for node in graph.node:
        node.input[:] = map(renamed, node.input)
        node.output[:] = map(renamed, node.output)


def _forget_origins(model: Any) -> None:
    """Drop what says where each value came from: lines of code, and files of this machine."""
    graph = model.graph
    nodes = [node for function in model.functions for node in function.node]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, graph, *model.functions, *nodes):
        del part.metadata_props[:]


def _name_rows(graph: Any) -> None:
    """Call the dimension of the rows so, which PyTorch calls s and a number."""
    old = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(old)}\b", ROWS, dim.dim_param)
