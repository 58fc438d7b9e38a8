"""Chooses how a run computes: the device, the backend of the operators, the number of threads, the precision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..data import Batch
from ..errors import ConfigError
from ..ops import backends
from .ranks import Ranks


def select_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is the GPU if there is one. Raises :class:`ConfigError` if it cannot be used."""
    usable = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not usable or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device is {name!r}, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs; use device: cpu")
    return device


def device_of_rank(name: str, ranks: Ranks) -> torch.device:
    """The device of this rank: of several ranks on one machine, each has the GPU of its local number.

    Raises :class:`ConfigError` as :func:`select_device`, and if several ranks are to share one GPU.
    """
    device = select_device(name)
    if ranks.count == 1 or device.type != "cuda":
        return device
    if name not in ("auto", "cuda"):
        raise ConfigError(f"device is {name!r}, but torchrun has started {ranks.count} processes, a GPU for each; use device: cuda")
    device = select_device(f"cuda:{ranks.local}")
    torch.cuda.set_device(device)
    return device


def select_backend(name: str, device: torch.device) -> str:
    """The backend that runs under that name. Raises :class:`ConfigError` if there is none, ``BackendUnavailable`` if it cannot run."""
    try:
        return backends.resolve(name, device=device)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def default_threads() -> int:
    """PyTorch's number of CPU threads, but no more than the CPUs that a container grants the process.

    PyTorch starts one thread a core, whatever the limit. Linux lets them use up what is granted, and then stops all of them together.
    """
    import joblib

    return min(torch.get_num_threads(), joblib.cpu_count())


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Set deterministic algorithms and the number of threads, which decides the order of sums; restore these and random states."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(), torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_num_threads(before[2])


def select_precision(name: str, device: torch.device) -> str:
    """``name``, or for ``auto`` what the device multiplies fast: bfloat16 on a CPU with AMX, an AMD CPU with AVX512-BF16, and a GPU of at
    least sm_80.

    On a CPU of Intel's with AVX512-BF16 and without AMX, a training step took longer in bfloat16 than in float32.

    >>> select_precision("float32", torch.device("cpu"))
    'float32'
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # older versions do not say
        is_amd = capabilities.get("sse4a")
        fast = bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and is_amd))
    return "bfloat16" if fast else "float32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The block in which a training step computes its logits."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A copy on the device, which a GPU makes while the CPU goes on."""
    return each(batch, lambda part: pinned(part, device).to(device, non_blocking=True))


def each(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """A batch of what ``change`` makes of each tensor."""
    ids, dense, labels, weight = (None if part is None else change(part) for part in batch)
    return Batch(ids, dense, labels, weight)  # type: ignore[arg-type]


def pinned(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the CPU, in memory from which a GPU copies without its help."""
    return part.pin_memory() if device.type == "cuda" else part
