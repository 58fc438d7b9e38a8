"""The texts in an exported file: ``dcrnn_fast.json``, its description, and ``encoder.json``, which encodes rows for its model.

The description of compiled code has the kind of CPU that it is for: the system, the architecture and the instruction sets.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ... import __version__
from ...data import Encoder
from ...data.packed.meta import check_encoding
from ...errors import DataError, ExportError, shown
from ...ops.backends import extension_missing_reason
from ...support import strict_json
from ..ranker import Ranker, Run
from ..unseen import Cells

FORMAT = 1
"""The version of the description. A reader refuses every other one."""
ABOUT, ENCODER = "dcrnn_fast.json", "encoder.json"
MAX_ROWS = 2**20
"""The most rows of a call. The intermediate values of more would take gigabytes; :class:`ExportedRanker` divides longer tables."""

_SHAPE = {
    **dict.fromkeys(("kind", "dcrnn_fast", "torch", "backend", "encoding", "model"), str),
    **{key: [str] for key in ("tasks", "names", "dense")},
    **dict.fromkeys(("fields", "cells"), list),
    **dict.fromkeys(("operators", "cpu", "calibrated"), dict),
}
_SETS = (
    "avx", "amx", "fma", "f16c", "bmi", "sse", "ssse", "popcnt", "abm", "movbe", "adx", "aes", "vaes", "gfni", "sha", "pclmul", "vpclmul",
)  # fmt: skip
"""Instruction sets that a compiler may use, by the first letters of their names in Linux."""
PORTABLE = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "popcnt", "sse", "sse2", "sse4_1", "sse4_2", "ssse3")
"""The instruction sets of x86-64-v3, to which AVX2 belongs, as Linux names them."""


class Package(NamedTuple):
    """The description of an exported file, checked, its encoder, and what the run says of its fields and dense columns."""

    about: dict[str, Any]
    encoder: Encoder
    cells: list[Cells]
    ranges: dict[str, list[float]]


def describe(kind: str, ranker: Ranker, run: Run, backend: str, operators: set[str], cpu: Mapping[str, Any]) -> dict[str, str]:
    """The texts of :data:`ABOUT` and :data:`ENCODER` by name.

    ``operators`` are the operators of this package that the file calls, as ``namespace::name``. Their schemas are kept, so that a reader
    can tell whether its own are the same. ``cpu`` is the :func:`cpu_kind` that compiled code is for, or empty.
    """
    encoder, maps = ranker.encoder, {} if ranker.calibration is None else ranker.calibration.maps
    encoder_text = json.dumps(run.encoding, indent=1)
    about = {
        "format": FORMAT,
        "kind": kind,
        "dcrnn_fast": __version__,
        "torch": torch.__version__,
        "tasks": list(encoder.tasks),
        "names": list(ranker.names),
        "fields": [[name, size] for name, size in encoder.num_embeddings.items()],
        "dense": list(encoder.dense),
        "cells": [list(one) for one in run.cells],
        "ranges": run.ranges,
        "calibrated": {name: one.method for name, one in maps.items()},
        "backend": backend,
        "operators": {name: _schema(name) for name in sorted(operators)},
        "cpu": dict(cpu),
        "encoding": strict_json.json_digest(run.encoding),
        "encoder_md5": hashlib.md5(encoder_text.encode(), usedforsecurity=False).hexdigest(),  # of the bytes, for the server in C++
        "model": ranker.id,
    }
    return {ABOUT: json.dumps(about, indent=1), ENCODER: encoder_text}


def read_package(texts: Mapping[str, str], path: Path) -> Package:
    """The description and the encoder of a file, from the texts that :func:`describe` gave.

    Raises ExportError that names the file and the remedy: for another format, a description that is none, operators that this machine
    lacks or has otherwise, and for compiled code of another kind of CPU or another PyTorch.
    """
    about = _about(texts, path)
    _check_operators(about, path)
    if about["kind"] == "aoti":
        _check_machine(about, path)
    try:
        cells = [_cells(row, len(about["fields"])) for row in about["cells"]]
        ranges = {name: [float(low), float(high)] for name, (low, high) in about.get("ranges", {}).items()}
        if not all(low <= high for low, high in ranges.values()):
            raise ValueError("a range is none")
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise not_exported(path) from error
    return Package(about, _encoder(about, texts, path), cells, ranges)


def not_exported(path: Path) -> ExportError:
    """The error for a file that ``dcrnn-fast export`` did not write."""
    return ExportError(f"{path} is not a file of `dcrnn-fast export`, or was changed after it was written; export the run again")


def _about(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        about = strict_json.parse(texts[ABOUT])
        version = about["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise not_exported(path) from error
    if version != FORMAT:
        raise ExportError(
            f"{path} has format {shown(version)}, and dcrnn_fast {__version__} reads format {FORMAT}; "
            f"export the run again with this version, or install the one that wrote it: {shown(about.get('dcrnn_fast'))}"
        )
    if not strict_json.fits(about, _SHAPE) or not re.fullmatch("[0-9a-f]{64}", about["model"]):
        raise not_exported(path)
    if not strict_json.fits(about["cpu"].get("instructions", []), [str]):
        raise not_exported(path)
    tasks = about["tasks"]
    if about["names"] not in (tasks, [*tasks, *(f"{task}_given_{before}" for before, task in pairwise(tasks))]):
        raise not_exported(path)
    return about


def _cells(row: Any, columns: int) -> Cells:
    """A field that a file lists. Raises TypeError or ValueError for what is none of so many columns."""
    one = Cells(*row)
    shares, is_id = (share or 0 for share in one[3:]), one.missing_id is None or one.missing_id >= 0
    if not (isinstance(one.field, str) and one.column in range(columns) and is_id and all(0 <= share <= 1 for share in shares)):
        raise ValueError(f"{row!r} is not a field")
    return one


def _check_operators(about: Mapping[str, Any], path: Path) -> None:
    for name, schema in about["operators"].items():
        found = _schema(name)
        if found is None:
            raise ExportError(
                f"{path} calls {shown(name)}, which is not registered here: {extension_missing_reason().rstrip('.')}; "
                "or export the run with --backend reference"
            )
        if found != schema:
            raise ExportError(
                f"{path} was written by dcrnn_fast {shown(about['dcrnn_fast'])}, whose operator {name} takes other arguments than here, in "
                f"{__version__}; export the run again with this version"
            )


def _check_machine(about: Mapping[str, Any], path: Path) -> None:
    ours, theirs = torch.__version__.split(".")[:2], about["torch"].split(".")[:2]
    if ours != theirs:
        raise ExportError(
            f"{path} was compiled for PyTorch {shown(about['torch'])}, and this is {torch.__version__}; export the run again with this one"
        )
    if problem := missing_here(about["cpu"]):
        raise ExportError(f"{path} was compiled for another kind of CPU: {problem}; export the run on this one, or with --format pt2")


def _encoder(about: Mapping[str, Any], texts: Mapping[str, str], path: Path) -> Encoder:
    try:
        encoding = strict_json.parse(texts[ENCODER])
        if strict_json.json_digest(encoding) != about["encoding"]:
            raise not_exported(path)
        check_encoding(encoding)
        fields = {str(name): int(size) for name, size in about["fields"]}
        return Encoder(tasks=about["tasks"], num_embeddings=fields, dense=about["dense"], **encoding)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError) and "pip install" in str(error):  # a package is missing, the file is whole
            raise
        raise not_exported(path) from error


def _schema(name: str) -> str | None:
    """The schema of an operator, ``namespace::name``; None where none is registered."""
    namespace, _, short = name.partition("::")
    found = getattr(getattr(torch.ops, namespace), short, None) if namespace.isidentifier() and short.isidentifier() else None
    one = getattr(found, "default", None) if isinstance(found, torch._ops.OpOverloadPacket) else None
    return None if one is None else str(one._schema)


def portable_kind() -> dict[str, Any]:
    """The kind of all x86-64 CPUs under this system that have :data:`PORTABLE`."""
    return {"system": platform.system(), "machine": "x86_64", "instructions": list(PORTABLE)}


def cpu_kind() -> dict[str, Any]:
    """This machine's ``system``, ``machine`` and, on Linux with x86, its ``instructions``."""
    return {"system": platform.system(), "machine": platform.machine(), "instructions": _instructions()}


def missing_here(kind: Mapping[str, Any]) -> str | None:
    """The reason, in words, why code for this :func:`cpu_kind` does not run on this machine; None if it does."""
    ours = cpu_kind()
    for key in ("system", "machine"):
        if kind.get(key) != ours[key]:
            return f"its {key} is {kind.get(key)!r}, and here it is {ours[key]!r}"
    lacking = sorted(set(kind.get("instructions", ())) - set(ours["instructions"]))
    return f"this one lacks {', '.join(lacking)}" if lacking else None


def _instructions() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return sorted({flag for flag in flags if flag.startswith(_SETS)})
