"""Whether results are right: beside the exact ones and plain PyTorch's in the same dtype."""

import statistics
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from dcrnn_fast.support.accuracy import CEILING, relative_error

Results = dict[str, Tensor]
"""Outputs and gradients by name."""


def kinds(values: Tensor) -> Tensor:
    """0 for a finite value, 1 for NaN, 2 for infinity, 3 for minus infinity."""
    return values.isnan() + 2 * (values == torch.inf) + 3 * (values == -torch.inf)


def overflows(plain: Results, exact: Results) -> bool:
    """Whether numbers leave the dtype's range, or come near its end. Then the order of operations decides what becomes infinite or NaN."""
    for name, value in exact.items():
        near = value.isfinite() & (value.abs() > torch.finfo(plain[name].dtype).max / 16)
        if (near | (value.isfinite() & ~plain[name].isfinite())).any():
            return True
    return False


def misplaced(fast: Tensor, plain: Tensor, exact: Tensor, *, gradient: bool, shaken: Iterable[Tensor] = ()) -> str | None:
    """Where NaN, infinity and finite values do not stand as in plain PyTorch and in the exact result, in words.

    A value counts where those two are of one kind, and also the exact results ``shaken`` of arguments that differ by rounding errors: what
    remains of two numbers that cancel has a sign, which may decide between NaN and infinity. In a gradient, NaN and infinity are one kind:
    where a gate is so nearly closed or open that its slope is below the smallest normal number, an infinite weight times it is infinity,
    or NaN if the slope was rounded to 0.
    """
    kind = torch.isfinite if gradient else kinds
    wrong = (kind(plain) == kind(exact)) & (kind(fast) != kind(exact))
    for other in shaken:
        wrong &= kind(other) == kind(exact)
    if not wrong.any():
        return None
    at = wrong.nonzero()[0].tolist()
    place = tuple(at)
    return f"{int(wrong.sum())} values of another kind, at {at} {fast[place].item()}, plain PyTorch {plain[place].item()}"


def errors(fast: Tensor, plain: Tensor, exact: Tensor) -> tuple[float, float]:
    """The relative errors of both over the values where all three are finite; none among numbers below the dtype's smallest normal one."""
    if not bool((exact.where(exact.isfinite(), 0).abs() >= torch.finfo(plain.dtype).tiny).any()):
        return 0.0, 0.0
    finite = fast.isfinite() & plain.isfinite() & exact.isfinite()
    exact = exact.where(finite, 0)
    return relative_error(fast.where(finite, 0), exact), relative_error(plain.where(finite, 0), exact)


def bound(peer: float, dtype: torch.dtype) -> float:
    """The largest error beside plain PyTorch's; an error under one rounding counts as one rounding.

    As in tests/operators/precision.py, but for the ceilings: those are for problems of moderate numbers, and the worst of random ones are
    above them in plain PyTorch too. In float64, where what counts as exact errs as much, the ceiling is always allowed.
    """
    twice = 2 * max(peer, torch.finfo(dtype).eps)
    return max(CEILING["float64"], twice) if dtype == torch.float64 else twice


def wrong_result(fast: Results, plain: Results, exact: Results, shaken: Callable[[], list[Results]] = list) -> str | None:
    """A result of wrong shape, dtype or kinds of values, in words; None if there is none. For ``shaken`` see :func:`misplaced`."""
    if fast.keys() != exact.keys():
        return f"got the results {sorted(fast)}, expected {sorted(exact)}"
    for name, value in exact.items():
        got = fast[name]
        if got.shape != value.shape or got.dtype != plain[name].dtype:
            return f"{name}: got {got.dtype} {list(got.shape)}, expected {plain[name].dtype} {list(value.shape)}"
    if overflows(plain, exact):
        return None
    for name, value in exact.items():
        place = partial(misplaced, fast[name], plain[name], value, gradient=name != "out")
        if place() and (words := place(shaken=[results[name] for results in shaken()])):
            return f"{name}: {words}"
    return None


def inexact(
    fast: Results, plain: Results, exact: Results, again: Callable[[int], Iterable[tuple[Results, Results, Results]]]
) -> str | None:
    """A result that is not as exact as it must be, in words.

    One draw's few values may err by luck. So a result above its bound is judged by the median over more draws, which ``again`` makes. It is
    judged at once if every draw is above its own bound.
    """
    if overflows(plain, exact):
        return None
    for draws in (0, 8, 60):
        pairs: dict[str, list[tuple[float, float]]] = {}
        for one in ((fast, plain, exact), *again(draws)):
            for name in exact:
                pairs.setdefault(name, []).append(errors(*(results[name] for results in one)))
        found, clear = None, False
        for name, of_draws in pairs.items():
            error, peer = (statistics.median(column) for column in zip(*of_draws, strict=True))
            if error > (limit := bound(peer, fast[name].dtype)):
                found = f"{name}: relative error {error:.2e}, plain PyTorch {peer:.2e}, at most {limit:.2e}, medians of {draws + 1} draws"
                clear = draws > 0 and all(one > bound(of_plain, fast[name].dtype) for one, of_plain in of_draws)
        if found is None or clear:
            return found
    return found
