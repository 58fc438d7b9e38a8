"""Which backend ``auto`` takes on a GPU: checked and timed at the first call of a size, then remembered in this process. On a CPU,
:data:`.backends.AUTO` says it.

Every backend that can run is a candidate. It must give the reference's results, as exactly as plain PyTorch computes them, and take at
least a tenth less time than the reference, both as CUDA graphs; else the reference computes. In a graph that is traced or captured nothing
can be measured: what is known of the size counts, else the reference. docs/inside/kernels.md explains the rules for people.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..support.accuracy import CEILING, draws, errors, largest_error, medians, numbers
from ..support.cuda_graph import timer_of
from ..support.tracing import constant_in_graphs, hooked, may_read_values, observed, transformed
from .backends import BACKENDS, MEASURED, REASONS
from .cross_rnn import tf32
from .registry import CONTRACTS

logger = logging.getLogger("dcrnn_fast")

DEVICES = MEASURED
PLAIN = "reference"
CHECKED_ROWS, ROUNDS = 2048, 10
"""Rows at the start of a batch that are compared with float64, and rounds of timing."""
GAIN = 0.9
"""The most of the reference's time that a candidate may take."""

Run = Callable[..., Tensor]  # an implementation of an operator: from its differentiable tensors to the output


class Key(NamedTuple):
    """What a choice depends on: which inputs need a gradient, the options, all sizes but the batch's, and that by :func:`bucket`, or 0."""

    device: str
    operator: str
    kind: str
    needs: tuple[str, ...]
    options: tuple[Any, ...]
    sizes: tuple[int, ...]
    batch: int


class Choice(NamedTuple):
    """The backend to take, its time over the reference's, and why others were refused."""

    backend: str
    ratio: float
    refused: Mapping[str, str]


class Call(NamedTuple):
    """One call: its differentiable tensors, the dimension along which one has rows or None, and whether it needs a gradient."""

    tensors: Sequence[Tensor]
    row_dims: Sequence[int | None]
    needs: Sequence[bool]
    kind: str

    def draw(self, number: int) -> Call:
        """The first rows, from ``number`` 1 on with numbers up to a quarter larger or smaller, so that they round otherwise."""
        pairs = zip(self.tensors, self.row_dims, strict=True)
        short = [t if dim is None else t.narrow(dim, 0, min(CHECKED_ROWS, t.shape[dim])) for t, dim in pairs]
        with torch.no_grad():
            return self._replace(tensors=[t * numbers(t, number).div_(4).add_(1).to(t.dtype) if number else t for t in short])

    def prepared(self, run: Run, dtype: torch.dtype | None = None) -> Callable[[], list[Tensor]]:
        """A function that returns the output, and the gradients that are needed, of a loss with fixed weights."""
        with torch.inference_mode(False):
            pairs = zip(self.tensors, self.needs, strict=True)
            leaves = [tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_(need) for tensor, need in pairs]
        needed, weights = [leaf for leaf in leaves if leaf.requires_grad], list[Tensor]()

        def call() -> list[Tensor]:
            off = torch.autocast(leaves[0].device.type, enabled=False)
            with torch.inference_mode(False), off, torch.set_grad_enabled(bool(needed)):
                out = run(*leaves)
                if needed and not weights:  # the same for every dtype of the call
                    weights.append(numbers(out).to(self.tensors[0].dtype).to(out.dtype))
                return [out.detach(), *(torch.autograd.grad(out, needed, weights[0]) if needed else ())]

        return call


known: dict[Key, Choice] = {}
"""What this process has measured."""
_measuring = threading.Lock()


def bucket(rows: int) -> int:
    """``rows`` rounded up to a power of four, at least 16."""
    return next(size for power in range(2, 64) if (size := 4**power) >= rows)


def measured_backend(operator: str, tensors: Sequence[Any], options: tuple[Any, ...], implementation: Callable[[str], Any]) -> str:
    """The backend for a call of an operator on a device where ``auto`` measures. ``implementation`` gives what a backend offers."""
    first, names, is_cell, traced = tensors[0], CONTRACTS[operator].INPUTS, operator != "param_gather", torch.compiler.is_compiling()
    given = {name: tensor for name, tensor in zip(names, tensors, strict=False) if tensor is not None}
    # what is not a plain tensor has no values to check, nobody may see a measurement, and an output without values shows nothing
    plain = all([type(tensor) in (Tensor, Parameter) for tensor in tensors if tensor is not None])
    refused = (first if is_cell else tensors[2]).dim() != 2  # by the reference, which says why
    if transformed() or (not traced and (observed() or not plain or refused or not first.numel())):
        return PLAIN
    needs = tuple([name for name, tensor in given.items() if torch.is_grad_enabled() and tensor.requires_grad])
    row_dims = {"x0": 0, "context": 1}
    shapes = {name: [size for dim, size in enumerate(one.shape) if dim != row_dims.get(name)] for name, one in given.items()}
    sizes = sum([shape for name, shape in shapes.items() if not name.endswith("bias")], [] if is_cell else [tensors[2].shape[1]])
    is_tf32 = is_cell and first.is_cuda and first.dtype == torch.float32 and tf32()
    kind = "tf32" if is_tf32 else str(first.dtype).removeprefix("torch.")
    if traced:
        symbolic = torch.fx.experimental.symbolic_shapes
        open_sizes = not all([symbolic.has_static_value(size) for size in sizes])
        if open_sizes or any([is_traceable_wrapper_subclass(tensor) for tensor in given.values()]):
            return PLAIN
        # The tracer holds some fixed sizes as symbols, which are no constants to a function. Export needs no `no_grad` to make a program
        # for inference: that parameters require gradients says nothing there. In PyTorch 2.10 and 2.11 is_exporting() is true in every
        # compiled graph, which its flag is not.
        fixed = tuple([int(symbolic.guard_scalar(size)) for size in sizes])
        preferred = ((), needs) if torch.compiler._is_exporting_flag else (needs,)
        return in_graph(str(first.device), operator, kind, preferred, options, fixed)
    key = Key(str(first.device), operator, kind, needs, options, tuple(sizes), bucket(first.shape[0]) if is_cell else 0)
    if key in known:
        return known[key].backend
    if not may_read_values(first):
        return in_graph(key.device, operator, kind, (needs,), options, key.sizes)
    if not _measuring.acquire(blocking=False):  # another thread measures
        return PLAIN
    try:
        usable = [one.name for one in BACKENDS.values() if first.device.type in one.devices and REASONS[one.name] is None]

        def run(backend: str, *leaves: Tensor) -> Tensor:
            replaced = dict(zip(given, leaves, strict=True))
            every = [replaced.get(name) for name in names] + list(tensors[len(names) :])
            result: Tensor = implementation(backend)[operator](*every, *options)
            return result

        # a gather copies rows whatever they hold, and a bias that starts at zero would show nothing
        shown = [tensor if is_cell else numbers(tensor).to(tensor.dtype) for tensor in given.values()]
        call = Call(shown, [row_dims.get(name) for name in given], [name in needs for name in given], kind)
        run(PLAIN, *given.values())  # which checks the arguments: an error is the caller's
        return _choose(key, {name: partial(run, name) for name in (PLAIN, *usable)}, call)
    finally:
        _measuring.release()


@constant_in_graphs
def in_graph(
    device: str, operator: str, kind: str, needs: tuple[tuple[str, ...], ...], options: tuple[Any, ...], sizes: tuple[int, ...]
) -> str:
    """What all measured batch sizes of a size took, else the reference; of several ``needs`` the first of which anything is known.

    Under hooks on saved tensors, as of non-reentrant checkpointing, the reference, so that a recomputation takes the same backend.
    """
    for need in () if hooked() else needs:
        if taken := {choice.backend for key, choice in list(known.items()) if key[:-1] == (device, operator, kind, need, options, sizes)}:
            return taken.pop() if len(taken) == 1 else PLAIN
    return PLAIN


def _choose(key: Key, runs: Mapping[str, Run], call: Call) -> str:
    """Measure, remember, and say what is taken."""
    try:
        choice = measure(runs, call)
    except ArithmeticError:  # a call of zeros, say, shows nothing; a later one will
        return PLAIN
    except Exception as error:  # a measurement that fails must never be the user's problem
        choice = Choice(PLAIN, 1.0, {"every candidate": f"{type(error).__name__}: {error}"})
    known[key] = choice
    why = "".join(f"; {name} refused: {reason}" for name, reason in choice.refused.items())
    logger.info("auto takes %s, %.2f of the reference's time, for %s%s", choice.backend, choice.ratio, key, why)
    return choice.backend


def measure(runs: Mapping[str, Run], call: Call) -> Choice:
    """Check every candidate on the first rows of a problem and then on all of it, and time those that are right.

    On the first rows, the median over draws of a result's error against float64 may be as large as plain PyTorch's allows by
    :func:`dcrnn_fast.support.accuracy.largest_error`. On all rows, which other tiles may serve, it may differ from plain PyTorch by twice
    the ceiling. Raises ArithmeticError where plain PyTorch's results are zero or not finite, so that they show nothing.
    """
    least = min([tensor.numel() for tensor in call.draw(0).tensors if tensor.numel()])
    drawn = [call.draw(number) for number in range(draws(least))]
    exact = [draw.prepared(runs[PLAIN], torch.float64)() for draw in drawn]

    def errors_of(run: Run) -> list[float]:
        return medians([errors(draw.prepared(run)(), right) for draw, right in zip(drawn, exact, strict=True)])

    plain, whole = errors_of(runs[PLAIN]), call.prepared(runs[PLAIN])
    if not all(map(math.isfinite, plain)) or not all(out.any() for out, *_ in exact):
        raise ArithmeticError("the results of this call are not finite, or zero, so nothing can be checked")
    timers, refused, device = dict[str, Callable[[], float]](), dict[str, str](), call.tensors[0].device
    for name, run in runs.items():
        try:
            if name != PLAIN:
                _check(errors_of(run), [largest_error(error, call.kind) for error in plain])
                ours = call.prepared(run)
                _check(errors(ours(), whole()), [2 * CEILING[call.kind]] * len(plain), " on all rows")
                timers[name] = timer_of(ours, device)
        except Exception as error:
            refused[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200]
    if not timers:
        return Choice(PLAIN, 1.0, refused)
    timers[PLAIN] = timer_of(whole, device)
    rounds = [{name: timer() for name, timer in timers.items()} for _ in range(ROUNDS)]
    ratios = {name: statistics.median(times[name] / times[PLAIN] for times in rounds) for name in timers}
    best = min(ratios, key=ratios.__getitem__)
    slow = {name: f"takes {ratio:.2f} of the reference's time" for name, ratio in ratios.items() if ratio > GAIN and name != PLAIN}
    return Choice(PLAIN, 1.0, refused | slow) if ratios[best] > GAIN else Choice(best, ratios[best], refused | slow)


def _check(errors: Sequence[float], bounds: Sequence[float], where: str = "") -> None:
    """Raise ArithmeticError if an error is above its bound; NaN is above every bound."""
    for place, (error, most) in enumerate(zip(errors, bounds, strict=True)):
        if not error <= most:
            what = f"gradient {place - 1}" if place else "the output"
            raise ArithmeticError(f"wrong{where}: the relative error of {what} is {error:.1e}, at most {most:.1e}")
