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


class OneProduct(Eager):
    """The same with one product a step for both gate vectors, whose weights it joins: the strongest plain PyTorch of the full cell."""

    def cross_rnn(self, x0: Tensor, *tensors: Tensor, **options: Any) -> Tensor:
        """The reference's operator, by one product a step where it has no option that the benchmarks do not use."""
        if {name for name, value in options.items() if value is not None and value is not False} != {"steps", "cell"}:
            return reference.cross_rnn(x0, *tensors, **options)
        return one_product(x0, *tensors, **options)


def one_product(x0: Tensor, *tensors: Tensor, steps: int, cell: str, **_: None) -> Tensor:
    """``cross_rnn`` of the full cell without a context: in each step [T, B, D] x [T, D, G * D]."""
    shared_weight, shared_bias, private_weight, private_bias = tensors
    tasks, dim = private_weight.shape[0], x0.shape[1]
    weight, bias = (
        torch.cat([shared.expand(tasks, *shared.shape), private], dim=2)  # [T, W, D, G, ...]
        for shared, private in ((shared_weight, private_weight), (shared_bias, private_bias))
    )
    weight, bias = weight.permute(1, 0, 3, 2, 4).flatten(2, 3), bias.permute(1, 0, 3, 2).flatten(2).unsqueeze(2)  # [W, T, G * D, D]
    h = x0.expand(tasks, -1, -1)
    for step in range(steps):
        w = step % len(weight)
        a, *gates = torch.baddbmm(bias[w], h, weight[w].mT).split(dim, dim=-1)
        h = h + (torch.sigmoid(gates[0]) * x0 * a if cell == "gated" else x0 * a)
    return h


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


def products(
    dim: int, batch: int, tasks: int, gates: int, steps: int, *, dtype: torch.dtype, training: bool, device: str, own: bool | None = None
) -> Call:
    """The product floor: the bare matrix products that the cell needs, as library calls into memory that is there.

    Forward [B, D] x [D, G * D] for each task and step. Backward the transposed one, and one [G * D, L * B] x [L * B, D] for each task.
    With ``own``, by default on a GPU, each reads a state or a gradient of its own, as the cell's products do; else all read the same, which
    may lie in a cache.
    """
    kind, own = {"dtype": dtype, "device": device}, device == "cuda" if own is None else own
    weight = torch.randn(gates * dim, dim, **kind)
    states, all_states = _rows(torch.randn(tasks, steps, batch, dim, **kind), own)
    gradients, all_gradients = _rows(torch.randn(tasks, steps, batch, gates * dim, **kind), own)
    forward_out, back_out, weight_out = torch.empty_like(gradients[0][0]), torch.empty_like(states[0][0]), torch.empty_like(weight)

    def run() -> None:
        for task in range(tasks):
            for x in states[task]:
                torch.mm(x, weight.T, out=forward_out)
            if training:
                for gradient in gradients[task]:
                    torch.mm(gradient, weight, out=back_out)
                torch.mm(all_gradients[task].T, all_states[task], out=weight_out)

    return run


def thin_products(
    dim: int,
    rank: int,
    batch: int,
    tasks: int,
    gates: int,
    steps: int,
    *,
    dtype: torch.dtype,
    training: bool,
    device: str,
    own: bool | None = None,
) -> Call:
    """The product floor of the low-rank cell with one projection for all tasks, as library calls into memory that is there.

    Forward [B, D] x [D, G * r] for each task and step, but once for all tasks at the first, and G times [B, r] x [r, D]. Backward the
    transposed ones; for each task G times [D, L * B] x [L * B, r], and [G * r, L * B] x [L * B, D]. ``own`` as in :func:`products`, for
    states and projected ones.
    """
    kind, own = {"dtype": dtype, "device": device}, device == "cuda" if own is None else own
    projection, weight = torch.randn(gates * rank, dim, **kind), torch.randn(dim, rank, **kind)
    states, all_states = _rows(torch.randn(tasks, steps, batch, dim, **kind), own)
    projected, all_projected = _rows(torch.randn(tasks, steps, batch, gates * rank, **kind), own)
    columns = [slice(gate * rank, (gate + 1) * rank) if own else slice(rank) for gate in range(gates)]
    by_gate = [[[z[:, gate] for gate in columns] for z in of_task] for of_task in projected]
    all_by_gate = [[z[:, gate] for gate in columns] for z in all_projected]
    z_out, a_out, dz_out = projected[0][0].clone(), torch.empty_like(states[0][0]), by_gate[0][0][0].clone()
    dweight, dprojection = torch.empty_like(weight), torch.empty_like(projection)

    def run() -> None:
        for step in range(steps):
            for task in range(tasks if step else 1):
                torch.mm(states[task][step], projection.T, out=z_out)
            for task in range(tasks):
                for z in by_gate[task][step]:
                    torch.mm(z, weight.T, out=a_out)
        if not training:
            return
        for step in range(steps):
            for task in range(tasks):
                for _ in range(gates):
                    torch.mm(states[task][step], weight, out=dz_out)
            for task in range(tasks if step else 1):
                torch.mm(projected[task][step], projection, out=a_out)
        for task in range(tasks):
            for z in all_by_gate[task]:
                torch.mm(all_states[task].T, z, out=dweight)
            torch.mm(all_projected[task].T, all_states[task], out=dprojection)

    return run


def _rows(values: Tensor, own: bool) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Of [T, L, B, columns]: the rows that the product of each task and step reads, and the rows of all steps that a task's reads."""
    tasks, steps = values.shape[:2]
    by_step = [[values[task, step] if own else values[0, 0] for step in range(steps)] for task in range(tasks)]
    return by_step, [values[task if own else 0].flatten(0, 1) for task in range(tasks)]


def captured(run: Call) -> Call:
    """A call as a CUDA graph: what it returns replays the graph, and returns the results of the call that was recorded."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, times tiles, and makes what stays
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay() -> object:
        graph.replay()
        return results

    return replay
