"""Where the tests of the CUDA kernels run: on a GPU where there is one, else on the CPU, compiled for it (tests/cuda_on_host)."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dcrnn_fast import backends, functional

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cuda:
    """The device of the tensors, the extension, and what stands around the operators in Python."""

    device: str
    extension: ModuleType
    operators: ModuleType

    @property
    def library(self):
        """The operators as the dispatcher has them."""
        return getattr(torch.ops, "dcrnn_fast" if self.device == "cuda" else "dcrnn_fast_on_host")

    @contextmanager
    def forced(self, schedule="automatic", tiles="automatic"):
        """Within it calls compute by these kernels."""
        self.extension.force(schedule=schedule, tiles=tiles)
        try:
            yield
        finally:
            self.extension.force(schedule="automatic", tiles="automatic")

    def of(self, arguments: dict) -> dict:
        """The arguments with every tensor on the device."""
        return {name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}


@cache
def _loaded(folder: Path) -> Cuda:
    from filelock import FileLock

    from ..cuda_on_host import on_host

    folder.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # where tests are spread over processes, the first one builds
        path = on_host.build(folder)
    return Cuda("cpu", *on_host.load(path))


@pytest.fixture
def cuda(tmp_path_factory, monkeypatch):
    """The kernels as backend "cuda" of ``functional``, with new memory full of NaN: a value that no kernel wrote is seen."""
    if torch.cuda.is_available():
        if reason := backends.REASONS["cuda"]:
            pytest.skip(f"no CUDA kernels here: {reason}")
        from dcrnn_fast import ops

        found = Cuda("cuda", backends.cuda_extension(), ops)
    else:
        if backends.extension() is None or shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
            pytest.skip(f"neither a GPU nor a C++ compiler that could build the kernels for the CPU: {backends.REASONS['cpp']}")
        folder = tmp_path_factory.getbasetemp()
        if os.environ.get("PYTEST_XDIST_WORKER"):
            folder = folder.parent
        found = _loaded(folder / "cuda_on_host")
        monkeypatch.setitem(backends.REASONS, "cuda", None)
        monkeypatch.setitem(backends.BACKENDS, "cuda", replace(backends.BACKENDS["cuda"], devices=("cuda", "cpu")))
        monkeypatch.setitem(functional._CROSS_RNN, "cuda", found.operators.cross_rnn)
        monkeypatch.setitem(functional._PARAM_GATHER, "cuda", found.operators.param_gather)
    torch.use_deterministic_algorithms(True)
    yield found
    torch.use_deterministic_algorithms(False)
