"""Measures schedules and tile sizes on a GPU and keeps the fastest, for ``dcrnn-fast info --warm`` and ``make gpu``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from .. import reference
from ..errors import ConfigError
from ..kernels import tile_choice, tile_file, tile_table
from ..kernels.tile_file import Entry
from ..kernels.tile_table import SCHEDULES, Config, Sizes
from ..sharing import GATES
from ..support import accuracy, files
from . import triton as _operators  # noqa: F401  registers torch.ops.dcrnn_fast_triton
from .auto import memory
from .cross_rnn import Arguments, Keep, Needs

CHECKED_ROWS = 512
"""So many rows at the start and at the end of a batch are compared with the reference."""


def median_milliseconds(run: Callable[[], object]) -> float:
    """The median time of a call on the GPU, by CUDA events, with a cold L2 cache."""
    return float(triton.testing.do_bench(run, return_mode="median"))


def tune(
    dim: int,
    tasks: int,
    batch: int,
    *,
    steps: int = 3,
    kind: str = "bfloat16",
    device: torch.device | str = "cuda",
    measure: Callable[[Callable[[], object]], float] = median_milliseconds,
    report: Callable[[str], None] = lambda line: None,
) -> list[Entry]:
    """Time the operators of the gated cell with every candidate tile of every kernel, and write the fastest to the user's file.

    Checks the results of each candidate before timing it. Leaves out candidates that need more shared memory than the card has.

    Args:
        dim: D.
        tasks: T.
        batch: B. The choices then serve all T * B of the same :func:`~dcrnn_fast.kernels.tile_table.bucket`.
        steps: L.
        kind: the dtype as the products see it: "bfloat16", "float16", "float32", "float64", or "tf32" for float32 tensors.
        device: a CUDA device.
        measure: returns the milliseconds of a call.
        report: receives a line for each candidate.

    Returns:
        The entries that were written.

    Raises:
        ArithmeticError: a candidate's result is wrong.
        ConfigError: the user's file is damaged, or cannot be written.
    """
    card = tile_table.card_of(torch.device(device))
    if not card.name:
        raise ValueError(f"device={str(device)!r}: expected a CUDA device")
    tile_file.load(tile_file.user_file(card.name), card.name)  # a damaged file fails now, not after minutes of measuring
    problem = _Problem(dim, tasks, batch, steps, kind, torch.device(device))
    sizes = problem.sizes
    best: dict[str, tuple[float, Config]] = {}
    for kernel in tile_table.KERNELS:
        fixed: dict[str, Config | str] = {"schedule": kernel} if kernel in SCHEDULES else {}
        if kernel == "inputs":
            fixed["backward"] = best["backward"][1]
        times: dict[Config, float] = {}
        for tile in tile_table.candidates(kernel, sizes.kind, sizes.gates, card):
            with tile_choice.kernel_override(**{kernel: tile}, **fixed):
                try:
                    problem.check(kernel, tile)
                    times[tile] = measure(lambda kernel=kernel: problem.run(kernel)) * 1e3  # type: ignore[misc]
                except triton.runtime.errors.OutOfResources as error:
                    report(f"{kernel} {tile}: left out, {error}")
                    continue
            report(f"{kernel} {tile}: {times[tile]:.1f} us")
        if not times:
            raise ArithmeticError(f"{kernel}: no candidate runs on {card.name}")
        fastest = min(times, key=times.__getitem__)
        best[kernel] = times[fastest], fastest
    entries = [Entry(sizes.key(kernel), tile, time) for kernel, (time, tile) in best.items()]
    schedule = min(SCHEDULES, key=lambda kernel: best[kernel][0])
    entries.append(Entry(sizes.key("schedule"), schedule, best[schedule][0]))
    report(f"schedule: {schedule}; written to {save(card.name, entries)}")
    tile_choice.clear()
    memory.clear()  # what `auto` chose, it chose with other tile sizes
    return entries


def save(card: str, entries: Iterable[Entry], path: Path | None = None) -> Path:
    """Add entries to a file, by default the user's, and return its path. An entry replaces one with the same key.

    Raises ConfigError: the file there is damaged or of another card, or it cannot be written.
    """
    path = path or tile_file.user_file(card)

    def content() -> dict[str, Any]:
        merged = {entry.key: entry for entry in [*tile_file.load(path, card), *entries]}
        return {"format": tile_file.FORMAT, "card": card, "entries": [merged[key].row() for key in sorted(merged)]}

    try:
        files.update_json(path, content)
    except OSError as error:
        raise ConfigError(
            f"{path}: measured tile sizes cannot be written ({error}); name another file in {tile_file.ENVIRONMENT}"
        ) from error
    return path


class _Problem:
    """The operators' arguments of one size, and the exact results of the first and the last rows.

    As in training, the forward keeps what the backward needs. The backward computes the gradient of x0. It computes no gradients of
    weights: PyTorch's library does those products.
    """

    def __init__(self, dim: int, tasks: int, batch: int, steps: int, kind: str, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)
        dtype = getattr(torch, "float32" if kind == "tf32" else kind)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype, device=device)

        gates, shared = GATES["gated"], dim // 2
        x0 = normal(batch, dim)
        banks = (
            normal(shared, gates, dim) / dim**0.5,
            normal(shared, gates),
            normal(tasks, dim - shared, gates, dim) / dim**0.5,
            normal(tasks, dim - shared, gates),
        )
        index = torch.arange(dim, dtype=torch.int32, device=device).repeat(tasks, 1)
        grad = normal(tasks, batch, dim)
        self.arguments = Arguments(x0, *banks, index, steps, allow_tf32=kind == "tf32", keep=Keep.BOTH)
        self.sizes = Sizes.of(x0, tasks, gates, dim, steps, self.arguments.allow_tf32)
        _, states, activations = self._forward()
        self.saved = grad, states, activations
        self.exact = []
        for rows in (slice(0, CHECKED_ROWS), slice(max(0, batch - CHECKED_ROWS), batch)):
            leaf = x0[rows].double().requires_grad_()
            weight, bias, own_weight, own_bias = (bank.double() for bank in banks)
            with torch.enable_grad():
                out = reference.cross_rnn(leaf, weight, bias, own_weight, own_bias, index, steps=steps)
            (gradient,) = torch.autograd.grad(out, leaf, grad[:, rows].double())
            self.exact.append((rows, out.detach(), gradient))

    def _forward(self) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            return torch.ops.dcrnn_fast_triton.cross_rnn(*self.arguments)

    def run(self, kernel: str) -> Tensor:
        """The result of the operator that launches the kernel: the output, or the gradient of x0."""
        if kernel in SCHEDULES:
            return self._forward()[0]
        with torch.no_grad():
            return torch.ops.dcrnn_fast_triton.cross_rnn_backward(*self.saved, Needs.X0, *self.arguments[:-1])[0]

    def check(self, kernel: str, tile: Config) -> None:
        """Raise ArithmeticError unless the result is right."""
        got = self.run(kernel)
        for rows, out, gradient in self.exact:
            error = accuracy.relative_error(got[..., rows, :], out if kernel in SCHEDULES else gradient)
            if not error < accuracy.CEILING[self.sizes.kind]:
                raise ArithmeticError(f"{kernel} with {tile} is wrong: relative error {error:.1e} on {self.sizes}")
