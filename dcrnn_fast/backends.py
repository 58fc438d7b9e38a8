"""Which implementations of the operators exist, which can run here, and which one ``auto`` takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

import dcrnn_fast.kernels as kernels  # by its whole name: where it is missing, the error names it

from .errors import BackendUnavailable, ConfigError
from .inputs import check_choice

logger = logging.getLogger("dcrnn_fast")

ENVIRONMENT = "DCRNN_FAST_BACKEND"
"""Environment variable that replaces ``auto`` by a backend's name."""

OPERATORS = ("param_gather", "cross_rnn")


@dataclass(frozen=True)
class Backend:
    """One implementation of the operators.

    ``unavailable_reason`` says why it cannot run on this machine at all, or returns None; it must not query a GPU.
    """

    name: str
    devices: tuple[str, ...]
    written_in: str
    unavailable_reason: Callable[[], str | None]


@cache
def extension() -> ModuleType | None:
    """The compiled extension, whose import registers the operators' schemas; None where it was not built or does not load."""
    try:
        return import_module("dcrnn_fast._C")
    except ImportError:
        return None


def extension_missing_reason() -> str:
    """Why :func:`extension` is None."""
    report = Path(__file__).with_name("_build_failure.txt")
    if report.is_file():
        return f"the C++ extension was not built: {report.read_text(encoding='utf-8').strip()}"
    if find_spec("dcrnn_fast._C") is not None:
        try:
            import_module("dcrnn_fast._C")
        except ImportError as error:
            return f"the C++ extension does not load beside PyTorch {torch.__version__}: {error}"
    return "the C++ extension was not built; install a C++20 compiler and run: pip install -e ."


@cache
def cuda_extension() -> ModuleType | None:
    """The compiled CUDA kernels, whose import registers them; None where they were not built or do not load. Needs no GPU."""
    if extension() is None or torch.version.cuda is None:
        return None
    try:
        return import_module("dcrnn_fast._C_cuda")
    except ImportError:
        return None


def cuda_extension_missing_reason() -> str:
    """Why :func:`cuda_extension` is None."""
    if extension() is None:
        return extension_missing_reason()
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA; install a CUDA build"
    report = Path(__file__).with_name("_build_failure_cuda.txt")
    if report.is_file():
        return f"the CUDA extension was not built: {report.read_text(encoding='utf-8').strip()}; then run again: pip install -e ."
    if find_spec("dcrnn_fast._C_cuda") is not None:
        try:
            import_module("dcrnn_fast._C_cuda")
        except ImportError as error:
            return f"the CUDA extension does not load beside PyTorch {torch.__version__}: {error}"
    return f"the CUDA extension was not built; install the CUDA {torch.version.cuda} toolkit and run: pip install -e ."


def _has_kernels(dispatch_key: str) -> bool:
    return all(torch._C._dispatch_has_kernel_for_dispatch_key(f"dcrnn_fast::{name}", dispatch_key) for name in OPERATORS)


def _isa_error() -> str | None:
    compiled = extension()
    if compiled is None:
        return None
    try:
        compiled.isa()
    except ValueError as error:
        return str(error).removeprefix("dcrnn_fast: ")
    return None


ISA_ERROR = _isa_error()
"""What is wrong with the value of DCRNN_FAST_ISA, which the extension reads once, or None."""


def _cpp_reason() -> str | None:
    if extension() is None:
        return extension_missing_reason()
    if ISA_ERROR:
        return ISA_ERROR
    return None if _has_kernels("CPU") else "this version has the operators' schemas and no C++ kernels yet"


def _cuda_reason() -> str | None:
    return None if cuda_extension() else cuda_extension_missing_reason()


def _triton_reason() -> str | None:
    return kernels.unavailable_reason()


def _reference_reason() -> str | None:
    return None


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("reference", ("any",), "PyTorch", _reference_reason),
        Backend("cpp", ("cpu",), "C++", _cpp_reason),
        Backend("triton", ("cuda", "cpu") if kernels.INTERPRETED else ("cuda",), "Triton", _triton_reason),
        Backend("cuda", ("cuda",), "CUDA C++", _cuda_reason),
    )
}
NAMES = ("auto", *BACKENDS)
AUTO = {"cpu": ("cpp", "reference"), "cuda": ("reference",)}
"""The order in which ``auto`` tries backends, by device type, for every dtype and size; other devices take the reference. On a CPU the C++
kernels were ahead of the reference in every case of ``make bench``. On a GPU nothing was measured yet: kernels are taken by name there."""


REASONS: dict[str, str | None] = {name: backend.unavailable_reason() for name, backend in BACKENDS.items()}
"""Why each backend cannot run on this machine, or None where nothing is known to stand in its way. Filled at import, so that a traced graph
reads a constant."""

_logged: set[str] = set()


@cache
def _no_device() -> str | None:
    """Why no GPU can be used, or None. Asks the driver, which an import must not: for a GPU's backend by name, and for people."""
    if torch.cuda.is_available():
        return None
    return "no CUDA device was found; run on a machine with an NVIDIA GPU and its driver"


def unusable_reason(name: str) -> str | None:
    """Why a backend cannot run on this machine, its GPU included, or None."""
    reason = REASONS.get(name)
    if reason is None and name in BACKENDS and BACKENDS[name].devices == ("cuda",) and not torch.compiler.is_compiling():
        return _no_device()
    return reason


def require(name: str) -> None:
    """Raise ValueError for an unknown backend, BackendUnavailable for one that was named and cannot run here."""
    check_choice("backend", name, NAMES)
    reason = unusable_reason(name)
    if reason:
        raise BackendUnavailable(f"backend={name!r} cannot be used: {reason}. Use backend='auto' or backend='reference'")


def resolve(name: str = "auto", *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> str:
    """The backend that computes for tensors of this device and dtype.

    ``auto`` (or the value of DCRNN_FAST_BACKEND in its place) takes the first usable one of :data:`AUTO` and logs once what it passed over.

    Raises:
        ValueError: an unknown name; ConfigError, which is one, where it came from DCRNN_FAST_BACKEND, or where DCRNN_FAST_ISA is wrong.
        BackendUnavailable: a named backend that cannot run here, or not on this device; the message says why and what to do.
    """
    if name == "auto":
        name = os.environ.get(ENVIRONMENT, "auto")
        if name not in NAMES:
            raise ConfigError(f"{ENVIRONMENT}={name!r}: expected one of {', '.join(map(repr, NAMES))}")
    kind = torch.device(device).type
    if name == "auto":
        if ISA_ERROR and kind == "cpu":
            raise ConfigError(ISA_ERROR)
        candidates = AUTO.get(kind, ("reference",))
        chosen = next(candidate for candidate in candidates if REASONS[candidate] is None)
        if not torch.compiler.is_compiling():
            _log_once(kind, chosen)
        return chosen
    check_choice("backend", name, NAMES)
    devices = BACKENDS[name].devices
    if kind not in devices or REASONS[name]:  # tensors on a GPU show that there is one
        require(name)
    if "any" not in devices and kind not in devices:
        raise BackendUnavailable(
            f"backend={name!r} cannot be used: it computes on {' and '.join(devices)} and the tensors are on {kind}. "
            f"Move them, or use backend='auto'"
        )
    return name


def _log_once(kind: str, chosen: str) -> None:
    if kind in _logged:
        return
    _logged.add(kind)
    for name in AUTO.get(kind, ()):
        if name == chosen:
            break
        logger.info("backend 'auto' passes over %r on %s: %s", name, kind, REASONS[name])
    logger.info("backend 'auto' takes %r on %s", chosen, kind)


def table() -> list[dict[str, str]]:
    """One row a backend for people to read: name, devices, written in, usable ("yes", or "no: why"). Asks the driver for a GPU."""
    rows = []
    for backend in BACKENDS.values():
        reason = unusable_reason(backend.name)
        usable = f"no: {reason}" if reason else "yes"
        rows.append({"backend": backend.name, "device": ", ".join(backend.devices), "written in": backend.written_in, "usable": usable})
    return rows
