"""Logistic regression on one-hot features: each id is a feature, and so is each bin of a number. L2 is chosen by the validation rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from .networks import Setting

STRENGTHS = 10.0 ** np.arange(-3, 2.1, 0.5)
"""scikit-learn's C, from strong L2 to weak: the variance of a coefficient's normal prior."""


class Rows(NamedTuple):
    """Features [N, F + Nd] and labels [N] of one task."""

    x: np.ndarray
    y: np.ndarray


class Logistic:
    """The regression with the C of the lowest log loss of the validation rows. Its place among the strengths stands in ``rounds``.

    Each C starts with the coefficients of the one before; the first that raises the loss ends the path. Id 0, out of vocabulary, is a
    feature like any other: L2 keeps it at 0 where no train row has it. ``setting`` has the number of bins. Nothing is drawn by the seed.
    """

    def __init__(self, sizes: Sequence[int], setting: Setting, seed: int, rounds: int, train: Rows, valid: Rows) -> None:
        self.edges = [None if size else edges(train.x[:, at], setting["bins"]) for at, size in enumerate(sizes)]
        widths = [size or len(cuts) + 1 for size, cuts in zip(sizes, self.edges, strict=True)]  # type: ignore[arg-type]
        self.starts, self.width = np.cumsum([0, *widths[:-1]]), sum(widths)
        x, checked, best = self.one_hot(train.x), self.one_hot(valid.x), math.inf
        # Of a fixed bound on the mean gradient, many rows would make one that the gradient of a rare id never exceeds.
        model = LogisticRegression(solver="newton-cg", warm_start=True, tol=1 / len(train.y))
        for number, strength in enumerate(STRENGTHS[:rounds], start=1):
            with threadpool_limits(1):
                model.set_params(C=strength).fit(x, train.y)
            loss = log_loss(model.decision_function(checked), valid.y)
            if loss > best:
                break
            if loss < best:
                best, self.rounds, self.weight, self.bias = loss, number, model.coef_[0].copy(), float(model.intercept_[0])

    def one_hot(self, x: np.ndarray) -> csr_matrix:
        """The features [N, width] of rows: a 1 for each of their columns."""
        parts = [x[:, at] if cuts is None else np.searchsorted(cuts, x[:, at]) for at, cuts in enumerate(self.edges)]
        at = np.stack(parts, axis=1).astype(np.int32) + self.starts.astype(np.int32)
        return csr_matrix((np.ones(at.size), at.ravel(), np.arange(0, at.size + 1, at.shape[1])), shape=(len(x), self.width))

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.one_hot(x) @ self.weight + self.bias


def edges(values: np.ndarray, bins: int) -> np.ndarray:
    """What parts a column of numbers into so many bins of equally many rows; each value is a bin where there are at most twice as many."""
    found = np.unique(values)
    if len(found) <= 2 * bins:
        return (found[1:] + found[:-1]) / 2
    return np.unique(np.quantile(values, np.arange(1, bins) / bins))


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))
