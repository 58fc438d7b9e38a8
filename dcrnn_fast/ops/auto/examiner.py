"""Checks implementations of an operator against float64, and times those that are right. It takes any candidates, on any device."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...support import accuracy
from ...support.accuracy import relative_error
from .memory import Choice

CHECKED_ROWS = 2048
"""So many rows at the start of a batch are compared with float64."""
GAIN = 0.9
"""A candidate is taken if its time is at most this part of the reference's."""
ROUNDS = 10


class NothingToCheckError(Exception):
    """A call whose results show nothing."""


Run = Callable[..., Tensor]
"""An implementation of an operator: from the differentiable tensors to the output."""
Call = Callable[[], list[Tensor]]
"""A call that is ready to be made: returns the output, and the gradients that are needed."""
Timer = Callable[[Callable[[], object]], float]
"""Returns the seconds of a call."""


@dataclass(frozen=True)
class Problem:
    """One call: its differentiable tensors, which of them have rows (and along which dimension), and which of them need a gradient."""

    tensors: tuple[Tensor, ...]
    row_dimension: Mapping[int, int]
    needs: tuple[bool, ...]
    kind: str

    def first_rows(self, count: int) -> Problem:
        """The same call with the first rows of the batch alone."""
        short = [
            tensor.narrow(self.row_dimension[i], 0, min(count, tensor.shape[self.row_dimension[i]])) if i in self.row_dimension else tensor
            for i, tensor in enumerate(self.tensors)
        ]
        return replace(self, tensors=tuple(short))

    def draw(self, number: int) -> Problem:
        """The same call for ``number`` 0. Else one whose numbers are up to a quarter larger or smaller, so that they round otherwise."""
        if number == 0:
            return self
        with torch.no_grad():
            varied = [tensor * numbers(tensor, number).div_(4).add_(1).to(tensor.dtype) for tensor in self.tensors]
        return replace(self, tensors=tuple(varied))

    def prepared(self, run: Run, dtype: torch.dtype | None = None) -> Call:
        """A function that returns the output, and the gradients that are needed, of a loss with fixed weights."""
        with torch.inference_mode(False):
            pairs = zip(self.tensors, self.needs, strict=True)
            leaves = [tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_(need) for tensor, need in pairs]
        needed, training = [leaf for leaf in leaves if leaf.requires_grad], any(self.needs)
        weights: list[Tensor] = []

        def call() -> list[Tensor]:
            device = self.tensors[0].device.type
            with torch.inference_mode(False), torch.autocast(device, enabled=False), torch.set_grad_enabled(training):
                out = run(*leaves)
                if not training:
                    return [out.detach()]
                if not weights:  # the same for every dtype of the call
                    weights.append(numbers(out).to(self.tensors[0].dtype).to(out.dtype))
                return [out.detach(), *torch.autograd.grad(out, needed, weights[0])]

        return call

    def results(self, run: Run, dtype: torch.dtype | None = None) -> list[Tensor]:
        """What :meth:`prepared` returns, once."""
        return self.prepared(run, dtype)()


def measure(candidates: Mapping[str, Run], problem: Problem, timer: Timer) -> Choice:
    """Check every candidate on the first rows of the problem and then on all of it, and time those that are right.

    On the first rows, a candidate's error against float64 is at most :func:`dcrnn_fast.support.accuracy.largest_error`, as medians over
    draws. A gradient may have few values, whose error is luck: a candidate that seems too inexact is judged by more draws.
    On all rows, which other tiles may serve, it may differ from plain PyTorch by twice the ceiling.

    Args:
        candidates: implementations by the name of their backend, among them "reference", which is plain PyTorch.
        problem: the call.
        timer: returns the seconds of a call.

    Returns:
        The fastest candidate that is right and takes at most :data:`GAIN` of the reference's time, else the reference.

    Raises:
        NothingToCheckError: plain PyTorch's results are zero or not finite.
    """
    short, refusals = problem.first_rows(CHECKED_ROWS), _Refusals()
    errors: dict[str, list[list[float]]] = {name: [] for name in candidates}
    for number in range(accuracy.MOST_DRAWS):
        if number == accuracy.draws(short.tensors[0].numel()) and not any(_unclear(errors, name, problem.kind) for name in candidates):
            break
        given = short.draw(number)
        exact = given.results(candidates["reference"], torch.float64)
        plain = _errors(given.results(candidates["reference"]), exact)
        if not all(map(math.isfinite, plain)) or not exact[0].any():
            raise NothingToCheckError("the results of this call are not finite, or zero, so nothing can be checked")
        errors["reference"].append(plain)
        for name, run in candidates.items():
            if name != "reference" and name not in refusals.why:
                errors[name].append(refusals.errors(name, given.prepared(run), exact))
    bounds = _bounds(_medians(errors["reference"]), problem.kind)
    right = [name for name in candidates if name != "reference" and refusals.passes(name, _medians(errors[name]), bounds)]
    del exact
    if not right:
        return refusals.reference()
    calls = {name: problem.prepared(candidates[name]) for name in ("reference", *right)}
    whole, where = calls["reference"](), " on all rows"
    bounds = [2 * accuracy.CEILING[problem.kind]] * len(whole)
    right = [name for name in right if refusals.passes(name, refusals.errors(name, calls[name], whole, where), bounds, where)]
    del whole
    times: dict[str, list[float]] = {name: [] for name in ("reference", *right)}
    for _ in range(ROUNDS):
        for name, of_name in times.items():
            of_name.append(timer(calls[name]))
    medians = {name: statistics.median(of_name) for name, of_name in times.items()}
    best = min(medians, key=medians.__getitem__)
    ratio = medians[best] / medians["reference"]
    if best == "reference":
        return refusals.reference()
    if ratio > GAIN:
        refusals.why[best] = f"takes {ratio:.2f} of the reference's time, expected at most {GAIN}"
        return refusals.reference()
    return Choice(best, ratio, refusals.why, refusals.lasting)


class _Refusals:
    """Why candidates are refused. A refusal lasts if the candidate was wrong or slow, not if it raised."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}
        self.lasting = True

    def errors(self, name: str, results: Call, exact: Sequence[Tensor], where: str = "") -> list[float]:
        """The errors of a candidate's results; none if it raises, for which it is refused."""
        try:
            return _errors(results(), exact)
        except Exception as error:
            self.why[name] = f"{type(error).__name__}{where}: {(str(error).splitlines() or [''])[0]}"[:200]
            self.lasting = False
            return []

    def passes(self, name: str, errors: Sequence[float], bounds: Sequence[float], where: str = "") -> bool:
        """Whether a candidate's results are right."""
        if name not in self.why and (wrong := _wrong(errors, bounds)):
            self.why[name] = f"wrong{where}: {wrong}"
        return name not in self.why

    def reference(self) -> Choice:
        """The reference, for these reasons."""
        return Choice("reference", 1.0, self.why, self.lasting)


def _errors(results: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    pairs = zip(results, exact, strict=True)
    return [relative_error(got, right.double()) if got.shape == right.shape else math.inf for got, right in pairs]


def _medians(draws: Sequence[Sequence[float]]) -> list[float]:
    """The median of each result's errors; an error that is not finite outweighs all others."""
    columns = zip(*draws, strict=True) if all(draws) else ()
    return [next((error for error in errors if not math.isfinite(error)), statistics.median(errors)) for errors in columns]


def _bounds(plain: Sequence[float], kind: str) -> list[float]:
    return [accuracy.largest_error(error, kind) for error in plain]


def _unclear(errors: Mapping[str, Sequence[Sequence[float]]], name: str, kind: str) -> bool:
    """Whether a candidate's median error is above its bound, and the errors of some draw are not above theirs."""
    if not all(errors[name]) or not _wrong(_medians(errors[name]), _bounds(_medians(errors["reference"]), kind)):
        return False
    return not all(_wrong(one, _bounds(plain, kind)) for one, plain in zip(errors[name], errors["reference"], strict=True))


def numbers(like: Tensor, number: int = 0) -> Tensor:
    """Float64 numbers in [-1, 1] in the shape of a tensor, without the user's random generator; others for another ``number``."""
    return torch.arange(like.numel(), device=like.device, dtype=torch.float64).mul_(0.754877 + number / 64).sin_().view(like.shape)


def _wrong(errors: Sequence[float], bounds: Sequence[float]) -> str:
    """Which error is above its bound, in words, or nothing. NaN is above every bound."""
    for place, (error, most) in enumerate(zip(errors, bounds, strict=True)):
        if not error <= most:
            what = f"gradient {place - 1}" if place else "the output"
            return f"the relative error of {what} is {error:.1e}, at most {most:.1e}"
    return ""


def timer_of(device: torch.device) -> Timer:
    """A function that returns the seconds of a call, on a GPU by its own clock."""
    if device.type != "cuda":

        def on_cpu(run: Callable[[], object]) -> float:
            begin = time.perf_counter()
            run()
            return time.perf_counter() - begin

        return on_cpu

    def on_gpu(run: Callable[[], object]) -> float:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return on_gpu
