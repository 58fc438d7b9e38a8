"""What the benchmarks have in common: the floors, the calls that are timed, and the check that comes before any timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dcrnn_fast import SharingPlan, reference

CEILING = {torch.float32: 1e-5, torch.bfloat16: 5e-2}
CHECKED_ROWS = 256
CHUNK = 4096
"""Rows whose result in float64 is computed at a time."""


def step(module: nn.Module, x0: Tensor, seed: Tensor | None) -> list[Tensor]:
    """One forward without gradients, or with ``seed`` a forward and the gradients of x0 and every parameter."""
    if seed is None:
        with torch.no_grad():
            return [module(x0)]
    leaf = x0.detach().requires_grad_()
    out = module(leaf)
    return [out.detach(), *torch.autograd.grad(out, [leaf, *(p for p in module.parameters() if p.requires_grad)], seed)]


def check(
    modules: Mapping[str, nn.Module],
    exact: nn.Module,
    x0: Tensor,
    seed: Tensor | None,
    *,
    rows: int | None = CHECKED_ROWS,
    ceiling: float | None = None,
) -> None:
    """Outputs and gradients of the first ``rows``, all with None, against float64, relative; nothing is timed that is wrong."""
    part = x0[:rows]
    given = None if seed is None else seed[..., :rows, :].contiguous()
    expected = _exactly(exact, part, given)
    for name, module in modules.items():
        for got, right in zip(step(module, part, given), expected, strict=True):
            error = float((got.double().reshape_as(right) - right).norm() / right.norm().clamp_min(1e-300))
            assert error < (ceiling or CEILING[x0.dtype]), f"{name}: relative error {error:.1e} against float64"


def _exactly(exact: nn.Module, x0: Tensor, seed: Tensor | None) -> list[Tensor]:
    """:func:`step` in float64, some rows at a time: of many rows at once it would need several times the memory of what is measured."""
    parts = []
    for first in range(0, x0.shape[0], CHUNK):
        rows = slice(first, first + CHUNK)
        parts.append(step(exact, x0[rows].double(), None if seed is None else seed[..., rows, :].double()))
    outs, *gradients = zip(*parts, strict=True)
    found = [torch.cat(outs, dim=-2)]
    if gradients:
        found += [torch.cat(gradients[0]), *(torch.stack(gradient).sum(0) for gradient in gradients[1:])]
    return found


def products(
    dim: int, batch: int, tasks: int, gates: int, steps: int, dtype: torch.dtype, training: bool, device: str = "cpu"
) -> Callable[[], None]:
    """The GEMM floor: the bare products that the work needs, as library calls into memory that is there.

    Forward [B, D] x [D, G * D] a task and step; backward the transposed one, and one [G * D, L * B] x [L * B, D] a task.
    """
    kind = {"dtype": dtype, "device": device}
    x, weight = torch.randn(batch, dim, **kind), torch.randn(gates * dim, dim, **kind)
    gradient, states = torch.randn(steps * batch, gates * dim, **kind), torch.randn(steps * batch, dim, **kind)
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


def gathers(
    dim: int, tasks: int, training: bool, ours: Mapping[str, Callable[..., Tensor]], dtype: torch.dtype = torch.float32, device: str = "cpu"
):
    """param_gather by ``ours``, by the reference and by index_select of the joined banks, checked, and a copy of the same bytes."""
    plan = SharingPlan.from_ratio("rows", tasks, dim, 0.5)
    kind = {"dtype": dtype, "device": device}
    shared, private, index = torch.randn(plan.shared_shape(), **kind), torch.randn(plan.private_shape(), **kind), plan.index().to(device)
    seed = torch.randn(*index.shape, *shared.shape[1:], **kind)
    own = torch.arange(tasks, device=device)[:, None] * private.shape[1]
    place = torch.where(index < shared.shape[0], index, index + own).flatten()
    into, back = torch.empty_like(seed), torch.empty_like(seed)

    def index_select(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        return torch.cat([shared, private.flatten(0, 1)]).index_select(0, place).view_as(seed)

    def call(gather: Callable[..., Tensor]) -> Sequence[Tensor]:
        if not training:
            with torch.no_grad():
                return [gather(shared, private, index)]
        banks = shared.detach().requires_grad_(), private.detach().requires_grad_()
        return torch.autograd.grad(gather(*banks, index), banks, seed)

    def copies() -> None:
        into.copy_(seed)
        if training:
            back.copy_(seed)

    candidates = {**ours, "eager": reference.param_gather, "index_select": index_select}
    calls = {name: lambda gather=gather: call(gather) for name, gather in candidates.items()}
    for name, run in calls.items():
        for got, right in zip(run(), call(reference.param_gather), strict=True):
            torch.testing.assert_close(got, right, msg=lambda text, name=name: f"{name}: {text}")
    return {**calls, "copy": copies}
