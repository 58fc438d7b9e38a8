"""How far a result may be from the exact one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

CEILING = {"bfloat16": 5e-2, "float16": 8e-3, "tf32": 2e-3, "float32": 1e-5, "float64": 1e-13}
"""The largest :func:`relative_error` of an output or a gradient, by dtype; "tf32" is float32 with products in tf32."""


ROUNDING = {"bfloat16": 2**-8, "float16": 2**-11, "tf32": 2**-24, "float32": 2**-24, "float64": 2**-53}
"""The largest relative error of rounding a number once: the dtype's unit roundoff, half of ``torch.finfo(dtype).eps``. A result in tf32 is
rounded to float32; only the factors of its products are rounded to tf32."""


def largest_error(plain: float, kind: str) -> float:
    """The largest :func:`relative_error` that is as exact as plain PyTorch, whose error on the same input is ``plain``.

    It is twice that error, and at most the ceiling, or plain PyTorch's own error where that is above the ceiling. It is never less than one
    rounding of the result, which the dtype itself costs: plain PyTorch may be more exact than that by luck, or because it rounds nothing.
    In float64 the oracle is plain PyTorch itself, so there the ceiling alone can be asked for.
    """
    if kind == "float64":
        return CEILING[kind]
    return min(max(2 * plain, ROUNDING[kind]), max(CEILING[kind], plain))


MOST_DRAWS = 31
"""Over how many random inputs to judge a result whose median error over fewer seems too large."""


def draws(values: int) -> int:
    """Over how many random inputs to take the median of errors, for x0 of so many values: of few values, one draw's error is luck."""
    return MOST_DRAWS if values < 200 else 9 if values < 5000 else 3


def relative_error(got: Tensor, exact: Tensor) -> float:
    """``||got - exact|| / ||exact||``, where ``exact`` is in float64."""
    return float((got.double() - exact).norm() / exact.norm().clamp_min(torch.finfo(torch.float64).tiny))


def errors(results: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """The :func:`relative_error` of each result; infinite where its shape is another."""
    pairs = zip(results, exact, strict=True)
    return [relative_error(got, right.double()) if got.shape == right.shape else math.inf for got, right in pairs]


def medians(draws: Sequence[Sequence[float]]) -> list[float]:
    """The median over draws of each result's error; one that is not finite outweighs all others."""
    return [next((error for error in of if not math.isfinite(error)), statistics.median(of)) for of in zip(*draws, strict=True)]


def numbers(like: Tensor, number: int = 0) -> Tensor:
    """Float64 numbers in [-1, 1] in the shape of a tensor, without the user's random generator; others for another ``number``."""
    return torch.arange(like.numel(), device=like.device, dtype=torch.float64).mul_(0.754877 + number / 64).sin_().view(like.shape)
