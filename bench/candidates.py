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
    shared_weight, shared_bias, private_weight, private_bias, index = tensors
    (tasks, rows), dim = index.shape, x0.shape[1]
    weight, bias = reference.param_gather(shared_weight, private_weight, index), reference.param_gather(shared_bias, private_bias, index)
    weight = weight.view(tasks, rows // dim, dim, -1, dim).permute(1, 0, 3, 2, 4).flatten(2, 3)  # [W, T, G * D, D]
    bias = bias.view(tasks, rows // dim, dim, -1).permute(1, 0, 3, 2).flatten(2).unsqueeze(2)
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


def products(dim: int, batch: int, tasks: int, gates: int, steps: int, *, dtype: torch.dtype, training: bool, device: str) -> Call:
    """The product floor: the bare matrix products that the cell needs, as library calls into memory that is there.

    Forward [B, D] x [D, G * D] for each task and step. Backward the transposed one, and one [G * D, L * B] x [L * B, D] for each task. Each
    reads a state or a gradient of its own, as the cell's products do: none finds it in a cache because another product read it.
    """
    kind = {"dtype": dtype, "device": device}
    states, weights = torch.randn(tasks, steps, batch, dim, **kind), torch.randn(tasks, gates * dim, dim, **kind)
    gradients = torch.randn(tasks, steps, batch, gates * dim, **kind)  # the forward's results before
    back_out, weight_out = states.new_empty(batch, dim), torch.empty_like(weights)

    def run() -> None:
        for task, weight in enumerate(weights):
            for step in range(steps):
                torch.mm(states[task, step], weight.T, out=gradients[task, step])
        for task, weight in enumerate(weights if training else ()):
            for step in range(steps):
                torch.mm(gradients[task, step], weight, out=back_out)
            torch.mm(gradients[task].flatten(0, 1).T, states[task].flatten(0, 1), out=weight_out[task])

    return run


def thin_products(
    dim: int, rank: int, batch: int, tasks: int, gates: int, steps: int, *, dtype: torch.dtype, training: bool, device: str
) -> Call:
    """The product floor of the low-rank cell with one projection for all tasks, as library calls into memory that is there.

    Forward [B, D] x [D, G * r] for each task and step, but once for all tasks at the first, and G times [B, r] x [r, D]. Backward the
    transposed ones; for each task G times [D, L * B] x [L * B, r], and [G * r, L * B] x [L * B, D]. As in :func:`products`, each reads a
    state, a projected one or a gradient of its own.
    """
    kind = {"dtype": dtype, "device": device}
    states, projection = torch.randn(tasks, steps, batch, dim, **kind), torch.randn(gates * rank, dim, **kind)
    projected, weights = torch.randn(tasks, steps, batch, gates * rank, **kind), torch.randn(tasks, gates, dim, rank, **kind)
    gradients = torch.randn(tasks, gates, steps, batch, dim, **kind)  # the forward's results before
    dz_out, du_out = states.new_empty(batch, rank), states.new_empty(batch, dim)
    dweight, dprojection = torch.empty_like(weights), torch.empty_like(projection)
    columns = [slice(gate * rank, (gate + 1) * rank) for gate in range(gates)]
    every = [(step, task) for step in range(steps) for task in range(tasks)]

    def run() -> None:
        for step, task in every:
            if step or not task:
                torch.mm(states[task, step], projection.T, out=projected[task, step])
            for gate in range(gates):
                torch.mm(projected[task, step, :, columns[gate]], weights[task, gate].T, out=gradients[task, gate, step])
        if not training:
            return
        for step, task in every:
            for gate in range(gates):
                torch.mm(gradients[task, gate, step], weights[task, gate], out=dz_out)
            if step or not task:
                torch.mm(projected[task, step], projection, out=du_out)
        for task in range(tasks):
            z = projected[task].flatten(0, 1)
            for gate in range(gates):
                torch.mm(gradients[task, gate].flatten(0, 1).T, z[:, columns[gate]], out=dweight[task, gate])
            torch.mm(z.T, states[task].flatten(0, 1), out=dprojection)

    return run


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
