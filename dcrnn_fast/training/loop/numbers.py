"""A dense column in the logistic regression from which a run starts: a function that is as strong and as smooth as the train rows show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...nn.model import DCRNN

Floats = npt.NDArray[np.float64]
MOST_CELLS = 2**23
"""Numbers that are fitted at most, in some ten seconds a task. Where there are more, training finds their functions by itself."""


class Number(NamedTuple):
    """A dense column, whose function is linear in each bin of the model and level outside of them.

    It rises by so much in each bin, as a random walk does: the rises are drawn from one normal distribution with mean 0.
    """

    column: int
    lower: Floats
    """The lower edges of the bins, which rise."""
    scale: Floats
    """One over the width of each bin."""

    @property
    def size(self) -> int:
        """How many bins there are."""
        return len(self.lower)

    def places(self, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], Floats]:
        """The bin of each value [B], and the part of it that lies below the value."""
        bins = np.maximum(np.searchsorted(self.lower, values, side="right") - 1, 0)
        return bins, np.clip((values - self.lower[bins]) * self.scale[bins], 0, 1)

    def function(self, values: npt.NDArray[np.float32], rises: Floats) -> Floats:
        """The function of values [B] with these rises [bins]."""
        bins, part = self.places(values)
        return np.r_[0.0, rises.cumsum()][bins] + rises[bins] * part

    def derivatives(
        self, values: npt.NDArray[np.float32], blocks: Iterable[tuple[slice, Floats, Floats]]
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Those of the log-likelihood of the rises, where the intercept follows them.

        Args:
            values: [rows].
            blocks: slices of the rows, with the first and second derivatives [B] by their logits.

        Returns the first and the second ones along directions in which the rises do not depend on each other; these directions
        [bins, directions], of length 1 / sqrt(bins), so that more bins make no stronger function; and the mean part [bins] of each bin that
        lies below a row's value.
        """
        sums = np.zeros((5, self.size))
        for rows, gradient, curvature in blocks:
            bins, part = self.places(values[rows])
            for total, each in zip(sums, (gradient, gradient * part, curvature, curvature * part, curvature * part**2), strict=True):
                total += np.bincount(bins, each, self.size)
        (slopes, whole), above = sums[[0, 2]].sum(axis=1), sums[[0, 2], ::-1].cumsum(axis=1)[:, ::-1] - sums[[0, 2]]  # of higher bins
        means, order = (above[1] + sums[3]) / max(whole, 1e-9), np.arange(self.size)
        products: Any = (above[1] + sums[3])[np.maximum.outer(order, order)]  # a row that reaches a bin has passed all below it
        products[order, order] = above[1] + sums[4]
        products -= whole * np.outer(means, means)
        curvature, directions = np.linalg.eigh(products / self.size)
        directions /= self.size**0.5
        return directions.T @ (above[0] + sums[1] - slopes * means), np.maximum(curvature, 0), directions, means


def numbers_of(model: DCRNN, rows: int) -> list[Number]:
    """The dense columns whose functions the first-order term of the model can hold; none if there are too many ``rows``."""
    embedding, first = model.features.dense_embedding, model.features.first_order
    if embedding is None or first is None or rows * model.num_dense > MOST_CELLS:
        return []
    lower, scale = (edges.cpu().double().numpy() for edges in (embedding.lower, embedding.scale))
    return [Number(column, lower[column][each > 0], each[each > 0]) for column, each in enumerate(scale)]
