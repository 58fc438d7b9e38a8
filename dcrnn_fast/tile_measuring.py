"""Measures schedules and tile sizes on a GPU, for ``dcrnn-fast info --warm`` and ``make gpu``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from . import reference
from .kernels import tile_choice, tile_file, tile_table
from .kernels.cross_rnn_op import EVERYTHING
from .kernels.tile_file import Entry, Key
from .kernels.tile_table import Config
from .sharing import GATES, Cell

CEILING = {"bfloat16": 5e-2, "float16": 8e-3, "tf32": 2e-3, "float32": 1e-5, "float64": 1e-10}
"""Relative errors against float64 that the operator stays below, by the dtype as the products see it."""

CHECKED_ROWS = 512


def median_milliseconds(run: Callable[[], object]) -> float:
    """The median time of a call on the GPU, by CUDA events, with a cold L2 cache."""
    return float(triton.testing.do_bench(run, return_mode="median"))


def tune(
    dim: int,
    tasks: int,
    batch: int,
    *,
    steps: int = 3,
    cell: Cell = "gated",
    dtype: torch.dtype = torch.bfloat16,
    context_dim: int = 0,
    device: torch.device | str = "cuda",
    measure: Callable[[Callable[[], object]], float] = median_milliseconds,
    report: Callable[[str], None] = lambda line: None,
) -> list[Entry]:
    """Time every candidate tile of every kernel through the operators, check its results first, and keep the fastest in the user's file.

    Args:
        dim: D.
        tasks: T.
        batch: B; the choices are then for all T * B of the same bucket.
        steps: L.
        cell: "gated" or "cross".
        dtype: of the tensors. float32 is measured as exact or tf32, as PyTorch's own setting says.
        context_dim: C columns of a context; 0 for none.
        device: a CUDA device, or under the interpreter and within :func:`~dcrnn_fast.kernels.tile_choice.as_card` the CPU.
        measure: milliseconds of a call.
        report: is told what each candidate took.

    Returns the entries that were written. A candidate that does not fit the card's shared memory is reported and left out.

    Raises:
        ArithmeticError: a candidate's result is wrong.
        ConfigError: the user's file is damaged, or cannot be written.
    """
    place = torch.device(device)
    number = -1 if place.type != "cuda" else torch.cuda.current_device() if place.index is None else place.index
    name, card = tile_choice.card_name(number), tile_choice.card(number)
    if name is None:
        raise ValueError(f"device={str(device)!r}: expected a CUDA device")
    tile_file.load(tile_file.user_file(name), name)  # before minutes of measuring, not after them
    problem = _Problem(dim, tasks, batch, steps, cell, dtype, context_dim, place)
    sizes = problem.sizes
    best: dict[str, tuple[float, Config]] = {}
    for kernel in ("step", "all_steps", "backward", *(["context"] if context_dim else [])):
        schedule = {"schedule": kernel} if kernel in tile_file.SCHEDULES else {}
        others = {"backward": best["backward"][1]} if kernel == "context" else {}
        times: dict[Config, float] = {}
        for tile in tile_table.candidates(kernel, sizes.kind, sizes.gates, card.shared_memory):
            with tile_choice.kernel_override(**{kernel: tile}, **schedule, **others):
                try:
                    problem.check(kernel, tile)
                    times[tile] = measure(lambda kernel=kernel: problem.run(kernel)) * 1e3  # type: ignore[misc]
                except triton.runtime.errors.OutOfResources as error:
                    report(f"{kernel} {_words(tile)}: left out, {error}")
                    continue
            report(f"{kernel} {_words(tile)}: {times[tile]:.1f} us")
        if not times:
            raise ArithmeticError(f"{kernel}: no candidate runs on {name}")
        fastest = min(times, key=times.__getitem__)
        best[kernel] = times[fastest], fastest
    entries = [Entry(Key.of(kernel, sizes), tile, time) for kernel, (time, tile) in best.items()]
    faster = min(tile_file.SCHEDULES, key=lambda kernel: best[kernel][0])
    entries.append(Entry(Key.of("schedule", sizes), faster, best[faster][0]))
    report(f"schedule: {faster}; written to {tile_file.save(name, entries)}")
    tile_choice.clear()
    return entries


def _words(tile: Config) -> str:
    return f"{tile.block_b}x{tile.block_d}x{tile.block_k}, {tile.num_warps} warps, {tile.num_stages} stages"


class _Problem:
    """Arguments of one size, the calls to time, and what the first and last rows of their results must be.

    The forward keeps what the backward needs, as in training; the backward is asked for the gradient of x0 alone, or with a context for
    the context's too: the weights' gradients are library products.
    """

    def __init__(
        self, dim: int, tasks: int, batch: int, steps: int, cell: Cell, dtype: torch.dtype, context_dim: int, device: torch.device
    ) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype, device=device)

        gates, columns, shared = GATES[cell], context_dim + dim, dim // 2
        self.x0 = normal(batch, dim)
        self.banks = (
            normal(shared, gates, columns) / columns**0.5,
            normal(shared, gates),
            normal(tasks, dim - shared, gates, columns) / columns**0.5,
            normal(tasks, dim - shared, gates),
        )
        self.index = torch.arange(dim, dtype=torch.int32, device=device).repeat(tasks, 1)
        self.context = normal(steps, batch, context_dim) if context_dim else None
        self.grad = normal(tasks, batch, dim)
        self.steps, self.cell, self.keep = steps, cell, EVERYTHING
        self.sizes = tile_choice.Sizes.of(self.x0, tasks, gates, columns, steps)
        _, self.states, self.kept = self._forward()
        self.expected = []
        for rows in self._checked():
            x0 = self.x0[rows].double().requires_grad_()
            context = None if self.context is None else self.context[:, rows].double().requires_grad_()
            weight, bias, own_weight, own_bias = (bank.double() for bank in self.banks)
            with torch.enable_grad():
                out = reference.cross_rnn(x0, weight, bias, own_weight, own_bias, self.index, steps=steps, cell=cell, context=context)
            wanted = [x0] if context is None else [x0, context]
            self.expected.append([out.detach(), *torch.autograd.grad(out, wanted, self.grad[:, rows].double())])

    def _checked(self) -> list[slice]:
        batch = self.x0.shape[0]
        return [slice(0, CHECKED_ROWS), slice(max(0, batch - CHECKED_ROWS), batch)]

    def _forward(self) -> Any:
        arguments = self.x0, *self.banks, self.index, self.context, self.steps, self.cell, False, self.keep
        with torch.no_grad():
            return torch.ops.dcrnn_fast.triton_cross_rnn(*arguments)

    def run(self, kernel: str) -> Any:
        """The operator in which the kernel runs."""
        if kernel in tile_file.SCHEDULES:
            return self._forward()
        needs = 33 if kernel == "context" else 1
        arguments = self.x0, *self.banks, self.index, self.context, self.states, self.kept, self.steps, self.cell, False, needs
        with torch.no_grad():
            return torch.ops.dcrnn_fast.triton_cross_rnn_backward(self.grad, *arguments)

    def check(self, kernel: str, tile: Config) -> None:
        """Raise ArithmeticError unless the results are right."""
        found = self.run(kernel)
        for rows, (out, dx0, *dcontext) in zip(self._checked(), self.expected, strict=True):
            pairs = [(found[0][..., rows, :], out)]
            if kernel not in tile_file.SCHEDULES:
                pairs = [(found[0][rows], dx0)]
            if kernel == "context":
                pairs.append((found[5][:, rows], dcontext[0]))
            for got, right in pairs:
                error = float((got.double() - right).norm() / right.norm().clamp_min(1e-300))
                if not error < CEILING[self.sizes.kind]:
                    raise ArithmeticError(f"{kernel} with {_words(tile)} is wrong: relative error {error:.1e} on {self.sizes}")
