"""A backend under test: where its tensors live, its operators, and the choices of kernels that it has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch

from dcrnn_fast import functional
from dcrnn_fast.ops import backends, dispatch
from dcrnn_fast.ops.cross_rnn import GradMask
from dcrnn_fast.ops.registry import Implementation

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

CHOICES: dict[str, dict[str, dict[str, str]]] = {
    "reference": {"reference": {}},
    "cpp": {"cpp": {}},
    "triton": {"triton": {}},
    "cuda": {
        "cuda, step, small tiles": {"schedule": "step", "tiles": "small"},
        "cuda, step, large tiles": {"schedule": "step", "tiles": "large"},
        "cuda, all_steps": {"schedule": "all_steps"},
    },
}
"""The kernels that a backend can be made to run, in words."""


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on each of these backends, or choices of kernels, through the fixture ``backend``."""
    return pytest.mark.parametrize("backend", names, indirect=True)


on_every_backend = on("reference", "cpp", "triton", "cuda")
on_kernels = on("cpp", "triton", "cuda")
on_gpu_kernels = on("triton", "cuda")
on_every_gpu_kernel = on(*CHOICES["triton"], *CHOICES["cuda"])
on_every_kernel = on("cpp", *CHOICES["triton"], *CHOICES["cuda"])


@dataclass(frozen=True)
class Backend:
    """Triton and CUDA run on a GPU where there is one; else under Triton's interpreter, and compiled for the CPU (tests/cuda_on_host)."""

    name: str
    device: str
    namespace: str
    override: Callable[..., None] = lambda: None
    """Makes later calls run the kernels that its arguments choose."""

    @property
    def operators(self) -> Any:
        """The operators as the dispatcher has them."""
        return getattr(torch.ops, self.namespace)

    @property
    def is_slow(self) -> bool:
        """Whether a GPU's kernels run on the CPU: a small call takes a fifth of a second."""
        return self.device == "cpu" and self.name in ("triton", "cuda")

    def of(self, arguments: dict) -> dict:
        """The arguments with every tensor on the device."""
        return {name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}

    def cross_rnn(self, **arguments: Any) -> torch.Tensor:
        return functional.cross_rnn(**arguments, backend=self.name)

    def param_gather(self, *arguments: torch.Tensor) -> torch.Tensor:
        return functional.param_gather(*arguments, backend=self.name)

    def operator(self, arguments: dict, which: str = "") -> Any:
        """The operator of these arguments as the dispatcher has it, or with "_backward" its backward."""
        return getattr(self.operators, ("low_rank_cross_rnn" if "shared_projection" in arguments else "cross_rnn") + which)

    def forward(self, arguments: dict, **options: Any) -> tuple[torch.Tensor, ...]:
        """The output, and what is saved for the backward: by default as in training."""
        return self.operator(arguments)(**{"saved": True, **arguments, **options})

    def backward(self, arguments: dict, grad: torch.Tensor, saved: torch.Tensor, mask: int, **options: Any) -> tuple[torch.Tensor, ...]:
        """The gradients, in the order of the operator's INPUTS."""
        options = {"return_states": False, "allow_tf32": False, **options}
        return self.operator(arguments, "_backward")(grad, saved, int(mask), **arguments, **options)

    @contextmanager
    def kernel_override(self, **choice: str) -> Iterator[None]:
        """Within this, calls run the chosen kernels."""
        self.override(**choice)
        try:
            yield
        finally:
            self.override()


def every_gradient(arguments: dict) -> int:
    """The mask of all gradients that a backward of these arguments can compute."""
    of_context = GradMask.CONTEXT if arguments["context"] is not None else 0
    return int(GradMask.X0 | GradMask.WEIGHTS | of_context | (GradMask.PROJECTIONS if "shared_projection" in arguments else 0))


def unusable(name: str) -> str | None:
    """Why a backend can run here neither on its device nor in its place."""
    if name == "cuda" and not torch.cuda.is_available():
        compiler = os.environ.get("CXX", "c++").split()[0]
        return None if shutil.which(compiler) else f"neither a GPU nor a C++ compiler {compiler!r} to compile the kernels for the CPU"
    return backends.REASONS[name]


def opened(name: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The backend. CUDA kernels that are compiled for the CPU take the place of "cuda" in ``functional``."""
    on_gpu = torch.cuda.is_available() and name in ("triton", "cuda")
    if name == "cuda" and not on_gpu:
        implementation, override = _on_host()
        monkeypatch.setitem(backends.REASONS, "cuda", None)
        monkeypatch.setitem(backends.BACKENDS, "cuda", replace(backends.BACKENDS["cuda"], devices=("cuda", "cpu")))
        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "cuda", implementation)
        return Backend(name, "cpu", "dcrnn_fast_on_host", override)
    dispatch.implementation(name)  # which registers it
    namespace = "dcrnn_fast_triton" if name == "triton" else "dcrnn_fast"
    choose = {"override": backends.cuda_extension().override_kernels} if name == "cuda" else {}
    return Backend(name, "cuda" if on_gpu else "cpu", namespace, **choose)


@cache
def _on_host() -> tuple[Implementation, Callable[..., None]]:
    from ..cuda_on_host import on_host

    return on_host.load(on_host.built())
