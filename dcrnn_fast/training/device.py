"""What a run computes on: the device, the backend of the operators, the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import ConfigError
from ..ops import backends
from .ranks.ranks import Ranks


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


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Set deterministic algorithms and the number of threads, which decides the order of sums; restore both afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(), torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_num_threads(before[2])
