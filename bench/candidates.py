"""What is timed: one forward or one training step of a module in several forms, and the floor beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast import CrossRNN, reference

Call = Callable[[], object]
CHUNK = 4096
"""Rows whose result in float64 is computed at a time."""


class Eager(CrossRNN):
    """CrossRNN on the operators in plain PyTorch, without the package's checks and choice of a backend."""

    def cross_rnn(self, *tensors: Tensor, **options: Any) -> Tensor:
        """The reference's operator."""
        return reference.cross_rnn(*tensors, **options)


def step(module: nn.Module, x0: Tensor, seed: Tensor | None) -> list[Tensor]:
    """One forward without gradients, or with ``seed`` a forward and the gradients of x0 and every parameter."""
    if seed is None:
        with torch.no_grad():
            return [module(x0)]
    leaf = x0.detach().requires_grad_()
    out = module(leaf)
    return [out.detach(), *torch.autograd.grad(out, [leaf, *(p for p in module.parameters() if p.requires_grad)], seed)]


def exactly(module: nn.Module, x0: Tensor, seed: Tensor | None) -> list[Tensor]:
    """:func:`step` in float64, in chunks of rows: all rows at once would need several times the memory of what is timed."""
    parts = []
    for first in range(0, x0.shape[0], CHUNK):
        rows = slice(first, first + CHUNK)
        parts.append(step(module, x0[rows].double(), None if seed is None else seed[..., rows, :].double()))
    outs, *gradients = zip(*parts, strict=True)
    found = [torch.cat(outs, dim=-2)]
    if gradients:
        found += [torch.cat(gradients[0]), *(torch.stack(gradient).sum(0) for gradient in gradients[1:])]
    return found


def products(dim: int, batch: int, tasks: int, gates: int, steps: int, *, dtype: torch.dtype, training: bool, device: str) -> Call:
    """The product floor: the bare matrix products that the cell needs, as library calls into memory that is there.

    Forward [B, D] x [D, G * D] for each task and step. Backward the transposed one, and one [G * D, L * B] x [L * B, D] for each task.
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


def thin_products(
    dim: int, rank: int, batch: int, tasks: int, gates: int, steps: int, *, dtype: torch.dtype, training: bool, device: str
) -> Call:
    """The product floor of the low-rank cell with one projection for all tasks, as library calls into memory that is there.

    Forward [B, D] x [D, G * r] for each task and step, but once for all tasks at the first, and G times [B, r] x [r, D]. Backward the
    transposed ones; for each task G times [D, L * B] x [L * B, r], and [G * r, L * B] x [L * B, D].
    """
    kind = {"dtype": dtype, "device": device}
    x, projection, weight = torch.randn(batch, dim, **kind), torch.randn(gates * rank, dim, **kind), torch.randn(dim, rank, **kind)
    projected, states = torch.randn(steps * batch, gates * rank, **kind), torch.randn(steps * batch, dim, **kind)
    z_out, a_out, dz_out = projected[:batch].clone(), torch.empty_like(x), projected[:batch, :rank].clone()
    dweight, dprojection = torch.empty_like(weight), torch.empty_like(projection)

    def run() -> None:
        for step in range(steps):
            for _ in range(tasks if step else 1):
                torch.mm(x, projection.T, out=z_out)
            for _ in range(tasks * gates):
                torch.mm(projected[:batch, :rank], weight.T, out=a_out)
        if not training:
            return
        for step in range(steps):
            for _ in range(tasks * gates):
                torch.mm(x, weight, out=dz_out)
            for _ in range(tasks if step else 1):
                torch.mm(projected[:batch], projection, out=a_out)
        for _ in range(tasks):
            for _ in range(gates):
                torch.mm(states.T, projected[:, :rank], out=dweight)
            torch.mm(projected.T, states, out=dprojection)

    return run


class Replay(nn.Module):
    """A module's forward of ``x0`` as a CUDA graph. A call replays the graph."""

    def __init__(self, module: nn.Module, x0: Tensor) -> None:
        super().__init__()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(3):
                module(x0)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self.graph):
            self.out = module(x0)

    def forward(self, _: Tensor) -> Tensor:
        self.graph.replay()
        return self.out
