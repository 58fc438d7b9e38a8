"""Which implementations of the operators exist, which can run here, and which one ``auto`` takes."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

import dcrnn_fast.kernels as kernels  # by its whole name: where it is missing, the error names it

from ..errors import BackendUnavailable, ConfigError
from ..support.checks import check_choice
from ..support.tensors import check_placement
from ..support.tracing import transformed

logger = logging.getLogger("dcrnn_fast")

ENVIRONMENT = "DCRNN_FAST_BACKEND"
"""Environment variable that replaces ``auto`` by a backend's name."""


@dataclass(frozen=True)
class Backend:
    """One implementation of the operators: its name, the types of devices whose tensors it takes, and what it is written in."""

    name: str
    devices: tuple[str, ...]
    written_in: str


EXTENSIONS = {
    "_C": ("C++", "_build_failure.txt", "install a C++20 compiler and run: pip install -e ."),
    "_C_cuda": (
        "CUDA",
        "_build_failure_cuda.txt",
        f"it is built on demand, by the CUDA {torch.version.cuda} toolkit: DCRNN_FAST_CUDA=1 pip install -e .",
    ),
}
"""The extensions by module: what they are, the file in which ``setup.py`` reports a failed build, and what to do without one."""


@cache
def _loaded(name: str) -> tuple[ModuleType | None, str]:
    """An extension, or None where it is missing or does not load; and why that is so."""
    language, report, remedy = EXTENSIONS[name]
    found, reason, failure = None, f"the {language} extension was not built; {remedy}", Path(__file__).parents[1] / report
    try:
        found = import_module(f"dcrnn_fast.{name}")
    except ImportError as error:
        if find_spec(f"dcrnn_fast.{name}") is not None:
            reason = f"the {language} extension does not load with PyTorch {torch.__version__}: {error}"
    if failure.is_file():
        reason = f"the {language} extension was not built: {failure.read_text(encoding='utf-8').strip()}; then run again: pip install -e ."
    return found, reason


def extension() -> ModuleType | None:
    """The compiled extension, whose import registers the operators' schemas and CPU kernels; None where it is missing or does not load."""
    return _loaded("_C")[0]


def extension_missing_reason() -> str:
    """Why :func:`extension` is None."""
    return _loaded("_C")[1]


def cuda_extension() -> ModuleType | None:
    """The extension whose import registers the CUDA kernels; None where it is missing or does not load. It needs no GPU."""
    return None if extension() is None or torch.version.cuda is None else _loaded("_C_cuda")[0]


def cuda_extension_missing_reason() -> str:
    """Why :func:`cuda_extension` is None."""
    if extension() is None:
        return extension_missing_reason()
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA; install a CUDA build"
    return _loaded("_C_cuda")[1]


def _isa_error() -> str | None:
    try:
        if compiled := extension():
            compiled.isa()
    except ValueError as error:
        return str(error).removeprefix("dcrnn_fast: ValueError: ")
    return None


ISA_ERROR = _isa_error()
"""What is wrong with the value of DCRNN_FAST_ISA, which the extension reads once, or None."""


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("reference", ("any",), "PyTorch"),
        Backend("cpp", ("cpu",), "C++"),
        Backend("triton", ("cuda", "cpu") if kernels.INTERPRETED else ("cuda",), "Triton"),
        Backend("cuda", ("cuda",), "CUDA C++"),
    )
}
NAMES = ("auto", *BACKENDS)
AUTO = {"cpu": ("cpp", "reference"), "cuda": ("reference",)}
"""The order in which ``auto`` tries backends, by device type, for every dtype and size. Other devices take the reference. On a CPU, the C++
kernels were faster than the reference in every recorded benchmark. On a GPU this holds where :mod:`dcrnn_fast.ops.auto_gpu` may not
measure."""
MEASURED = ("cuda",)
"""The types of devices on which :mod:`dcrnn_fast.ops.auto_gpu` measures."""

REASONS: dict[str, str | None] = {
    "reference": None,
    "cpp": ISA_ERROR if extension() else extension_missing_reason(),
    "triton": kernels.unavailable_reason(),
    "cuda": None if cuda_extension() else cuda_extension_missing_reason(),
}
"""Why each backend cannot run on this machine; None if no reason is known. The table is filled at import without querying a GPU, so that a
traced graph reads a constant."""


def unusable_reason(name: str) -> str | None:
    """Why a backend cannot run on this machine, its GPU included, or None. It asks the driver, which an import must not do."""
    reason = REASONS.get(name)
    needs_gpu = reason is None and name in BACKENDS and BACKENDS[name].devices == ("cuda",) and not torch.compiler.is_compiling()
    if needs_gpu and not torch.cuda.is_available():
        return "no CUDA device was found; run on a machine with an NVIDIA GPU and its driver"
    return reason


def require(name: str) -> None:
    """Raise ValueError for an unknown backend, BackendUnavailable for one that was named and cannot run here."""
    check_choice("backend", name, NAMES)
    reason = unusable_reason(name)
    if reason:
        raise BackendUnavailable(f"backend={name!r} cannot be used: {reason}. Use backend='auto' or backend='reference'")


def requested(name: str) -> str:
    """``name``, or in place of ``auto`` the value of DCRNN_FAST_BACKEND. Raises ConfigError if that names no backend."""
    if name != "auto":
        return name
    name = os.environ.get(ENVIRONMENT, "auto")
    if name not in NAMES:
        raise ConfigError(f"{ENVIRONMENT}={name!r}: expected one of {', '.join(map(repr, NAMES))}")
    return name


def resolve(name: str = "auto", *, device: torch.device | str = "cpu") -> str:
    """The backend that computes for tensors on this device.

    ``auto`` (or the value of DCRNN_FAST_BACKEND in its place) takes the first usable one of :data:`AUTO` and logs once what it passed over.
    Inside a transform of ``torch.func`` or forward-mode derivatives, which kernels do not have, it takes the reference.

    Raises:
        ValueError: an unknown name or device; ConfigError, which is one, where the name came from DCRNN_FAST_BACKEND, or where
            DCRNN_FAST_ISA is wrong.
        BackendUnavailable: a named backend that cannot run here, or not on this device; the message says why and what to do.
    """
    name = requested(name)
    check_placement(device, None)
    kind = torch.device(device).type
    if name == "auto":
        if ISA_ERROR and kind == "cpu":
            raise ConfigError(ISA_ERROR)
        if transformed():
            return "reference"
        candidates = AUTO.get(kind, ("reference",))
        chosen = next(candidate for candidate in candidates if REASONS[candidate] is None)
        if not torch.compiler.is_compiling():
            _log(kind, chosen)
        return chosen
    check_choice("backend", name, NAMES)
    devices = BACKENDS[name].devices
    if kind in devices and REASONS[name] is None:  # tensors on a GPU show that there is one
        return name
    require(name)
    if "any" not in devices:
        raise BackendUnavailable(
            f"backend={name!r} cannot be used: it computes on {' and '.join(devices)} and the tensors are on {kind}. "
            f"Move them, or use backend='auto'"
        )
    return name


@cache
def _log(kind: str, chosen: str) -> None:
    """Say once what ``auto`` takes on a type of device, and what it passes over."""
    for name in AUTO.get(kind, ()):
        if name == chosen:
            break
        logger.info("backend 'auto' passes over %r on %s: %s", name, kind, REASONS[name])
    if kind in MEASURED:
        logger.info("backend 'auto' checks and times the backends on %s at the first call of a size; elsewhere it takes %r", kind, chosen)
    else:
        logger.info("backend 'auto' takes %r on %s", chosen, kind)


def table() -> list[dict[str, str]]:
    """A row for each backend, for people to read: name, devices, language, and whether it is usable and if not, why. Asks the driver."""
    rows = []
    for backend in BACKENDS.values():
        reason = unusable_reason(backend.name)
        usable = f"no: {reason}" if reason else "yes"
        rows.append({"backend": backend.name, "device": ", ".join(backend.devices), "written in": backend.written_in, "usable": usable})
    return rows
