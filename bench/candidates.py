"""What the benchmarks have in common: the floors, the calls that are timed, and the check that comes before any timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

CEILING = {torch.float32: 1e-5, torch.bfloat16: 5e-2}
CHECKED_ROWS = 256


def step(module: nn.Module, x0: Tensor, seed: Tensor | None) -> list[Tensor]:
    """One forward without gradients, or with ``seed`` a forward and the gradients of x0 and every parameter."""
    if seed is None:
        with torch.no_grad():
            return [module(x0)]
    leaf = x0.detach().requires_grad_()
    out = module(leaf)
    return [out.detach(), *torch.autograd.grad(out, [leaf, *(p for p in module.parameters() if p.requires_grad)], seed)]


def check(modules: Mapping[str, nn.Module], exact: nn.Module, x0: Tensor, seed: Tensor | None) -> None:
    """Outputs and gradients of the first rows against float64, relative; nothing is timed that is wrong."""
    rows = x0[:CHECKED_ROWS]
    part = None if seed is None else seed[..., :CHECKED_ROWS, :].contiguous()
    expected = step(exact, rows.double(), None if part is None else part.double())
    for name, module in modules.items():
        for got, right in zip(step(module, rows, part), expected, strict=True):
            error = float((got.double().reshape_as(right) - right).norm() / right.norm().clamp_min(1e-300))
            assert error < CEILING[x0.dtype], f"{name}: relative error {error:.1e} against float64"


def products(dim: int, batch: int, tasks: int, gates: int, steps: int, dtype: torch.dtype, training: bool) -> Callable[[], None]:
    """The GEMM floor: the bare products that the work needs, as library calls into memory that is there.

    Forward [B, D] x [D, G * D] a task and step; backward the transposed one, and one [G * D, L * B] x [L * B, D] a task.
    """
    x, weight = torch.randn(batch, dim, dtype=dtype), torch.randn(gates * dim, dim, dtype=dtype)
    gradient, states = torch.randn(steps * batch, gates * dim, dtype=dtype), torch.randn(steps * batch, dim, dtype=dtype)
    forward_out, back_out, weight_out = gradient.new_empty(batch, gates * dim), x.new_empty(batch, dim), torch.empty_like(weight)

    def run() -> None:
        for _ in range(tasks):
            for _ in range(steps):
                torch.mm(x, weight.T, out=forward_out)
            if training:
                for _ in range(steps):
                    torch.mm(gradient[:batch], weight, out=back_out)
                torch.mm(gradient.T, states, out=weight_out)

    return run
