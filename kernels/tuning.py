"""Which schedule and tile sizes a call gets: forced ones, else measured ones, else predicted ones; and the measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from dcrnn_fast import reference
from dcrnn_fast.sharing import GATES, Cell

from . import configs, measured
from .configs import Card, Config
from .launch import precision
from .measured import Entry, Key


@dataclass(frozen=True)
class Sizes:
    """What a choice depends on: the device, the dtype as the products see it, and sizes, of which the rows are rounded up."""

    device: int
    kind: str
    rows: int
    dim: int
    gates: int
    columns: int
    steps: int

    @classmethod
    def of(cls, x0: Tensor, tasks: int, gates: int, columns: int, steps: int) -> Sizes:
        """The sizes of a call; a size that a traced graph leaves open counts as the one it was traced with."""
        kind = str(x0.dtype).removeprefix("torch.")
        if precision(x0.dtype) == "tf32":
            kind = "tf32"
        device = x0.device.index if x0.is_cuda and x0.device.index is not None else -1
        return cls(device, kind, configs.bucket(_hint(x0.shape[0]) * _hint(tasks)), _hint(x0.shape[1]), gates, _hint(columns), steps)

    def arguments(self) -> dict[str, int]:
        """What the predictions are made from."""
        return {"rows": self.rows, "dim": self.dim, "gates": self.gates, "columns": self.columns, "steps": self.steps}


def _hint(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    from torch.fx.experimental import symbolic_shapes

    # PyTorch 2.13 has this under another name than 2.10
    hint = getattr(symbolic_shapes, "optimization_hint", None) or symbolic_shapes.size_hint  # type: ignore[attr-defined]
    return int(hint(size, fallback=8192))


# No context variables: PyTorch runs backwards in threads of its own, which would not see them.
_forced: dict[str, Config | str] = {}
_named_card: list[str] = []


@contextmanager
def forced(**values: Config | str) -> Iterator[None]:
    """Within it every call gets these: a :class:`Config` by the kernel's name, ``schedule="step"`` or ``"all_steps"``. For measuring and
    tests; not for calls of several threads that want different ones."""
    unknown = [name for name in values if name not in (*configs.KERNELS, "schedule")]
    if unknown:
        raise ValueError(f"{unknown[0]!r}: expected one of {', '.join(configs.KERNELS)}, schedule")
    before = dict(_forced)
    _forced.update(values)
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


@contextmanager
def as_card(name: str) -> Iterator[None]:
    """Within it measured choices are those of this card, also where no tensor is on a GPU."""
    _named_card.append(name)
    clear()
    try:
        yield
    finally:
        _named_card.pop()
        clear()


def clear() -> None:
    """Forget what was looked up, so that files are read again."""
    for lookup in (_chosen, card_name, measured.choices):
        lookup.cache_clear()


@cache
def card_name(device: int) -> str | None:
    """The name of a CUDA device; None for -1, which is no CUDA device."""
    if _named_card:
        return _named_card[-1]
    return torch.cuda.get_device_name(device) if device >= 0 else None


@cache
def _card(device: int) -> Card:
    """What the prediction asks of the device; of an H100 where there is none. Rates are an H100's for every card."""
    if device < 0:
        return configs.H100
    found: Any = torch.cuda.get_device_properties(device)  # PyTorch's own types leave the shared memory out
    return replace(configs.H100, multiprocessors=found.multi_processor_count, shared_memory=found.shared_memory_per_block_optin)


def config(kernel: str, sizes: Sizes) -> Config:
    """The tile sizes of a kernel."""
    value = _forced.get(kernel) or _chosen(kernel, sizes)
    assert isinstance(value, Config)
    return value


def schedule(sizes: Sizes) -> str:
    """One launch for all steps of the forward, "all_steps", or one a "step"."""
    return str(_forced.get("schedule") or _chosen("schedule", sizes))


@cache
def _chosen(choice: str, sizes: Sizes) -> Config | str:
    name, card = card_name(sizes.device), _card(sizes.device)
    found = measured.choices(name).get(Key.of(choice, sizes)) if name else None
    if found is not None:
        return found
    if choice == "schedule":
        return configs.predicted_schedule(sizes.kind, **sizes.arguments(), card=card)
    return configs.predicted(choice, sizes.kind, **sizes.arguments(), card=card)


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
        device: a CUDA device, or under the interpreter and within :func:`as_card` the CPU.
        measure: milliseconds of a call.
        report: is told what each candidate took.

    Returns the entries that were written. A candidate that does not fit the card's shared memory is reported and left out.

    Raises:
        ArithmeticError: a candidate's result is wrong.
        ConfigError: the user's file is damaged, or cannot be written.
    """
    place = torch.device(device)
    number = -1 if place.type != "cuda" else torch.cuda.current_device() if place.index is None else place.index
    name, card = card_name(number), _card(number)
    if name is None:
        raise ValueError(f"device={str(device)!r}: expected a CUDA device")
    measured.load(measured.user_file(name), name)  # before minutes of measuring, not after them
    problem = _Problem(dim, tasks, batch, steps, cell, dtype, context_dim, place)
    sizes = problem.sizes
    best: dict[str, tuple[float, Config]] = {}
    for kernel in ("step", "all_steps", "backward", *(["context"] if context_dim else [])):
        schedule = {"schedule": kernel} if kernel in measured.SCHEDULES else {}
        others = {"backward": best["backward"][1]} if kernel == "context" else {}
        times: dict[Config, float] = {}
        for tile in configs.candidates(kernel, sizes.kind, sizes.gates, card.shared_memory):
            with forced(**{kernel: tile}, **schedule, **others):
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
    faster = min(measured.SCHEDULES, key=lambda kernel: best[kernel][0])
    entries.append(Entry(Key.of("schedule", sizes), faster, best[faster][0]))
    report(f"schedule: {faster}; written to {measured.save(name, entries)}")
    clear()
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
        from .cross_rnn_op import EVERYTHING

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
        self.sizes = Sizes.of(self.x0, tasks, gates, columns, steps)
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
        if kernel in measured.SCHEDULES:
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
            if kernel not in measured.SCHEDULES:
                pairs = [(found[0][rows], dx0)]
            if kernel == "context":
                pairs.append((found[5][:, rows], dcontext[0]))
            for got, right in pairs:
                error = float((got.double() - right).norm() / right.norm().clamp_min(1e-300))
                if not error < CEILING[self.sizes.kind]:
                    raise ArithmeticError(f"{kernel} with {_words(tile)} is wrong: relative error {error:.1e} on {self.sizes}")
