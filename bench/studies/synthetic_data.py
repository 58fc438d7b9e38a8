"""Two tasks of known relation, drawn anew for each seed: the synthetic data of Ma et al. (MMoE, KDD 2018, section 3.2) as binary tasks.

Inputs x ~ N(0, I_d) and two weight vectors w_1 = u_1 and w_2 = p u_1 + sqrt(1 - p^2) u_2, with u_1 and u_2 random and orthonormal, so that
their cosine is p. Each task has the score

    s_t = w_t x + sum_i sin(alpha_i w_t x + beta_i),    y_t = s_t + noise,

and the label 1 where y_t exceeds one fixed threshold. Since w_t x is standard normal for every p, so is the distribution of y_t the same,
and both tasks have the same base rate at every cosine. No label is better ranked than by its score. Beside the d columns of x stand columns
of standard normal noise, which no label reads; a random order mixes both kinds, so that the units that tasks share are of both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit

Floats = npt.NDArray[np.float64]

ALPHA, BETA = (1.0, 2.0), (0.0, 0.5)
NOISE = 1.0
"""The standard deviation of the noise in y. The paper has 0.1; with labels of two values that would leave hardly any error to compare."""
BASE_RATE = 0.3
TASKS = ("first", "second")
SIGNAL = "signal"
"""How the names of the columns begin that labels read; the others begin with "noise"."""


class Draw(NamedTuple):
    """How many rows each split has."""

    train: int = 4000
    valid: int = 1000
    test: int = 8000


class Drawn(NamedTuple):
    """A data set, and what it was drawn from: weights [2, d], and by split the scores [N, 2], which rank labels as well as can be."""

    dataset: PackedDataset
    weights: Floats
    scores: dict[str, Floats]


def weight_vectors(rng: np.random.Generator, dim: int, cosine: float) -> Floats:
    """Two unit vectors [2, dim] of this cosine. ``dim`` is at least 2. The first does not depend on ``cosine``."""
    basis = np.linalg.qr(rng.normal(size=(dim, 2)))[0].T
    return np.stack([basis[0], cosine * basis[0] + np.sqrt(1 - cosine**2) * basis[1]])


def score(projected: Floats) -> Floats:
    """s of w x, element by element."""
    return projected + sum(np.sin(alpha * projected + beta) for alpha, beta in zip(ALPHA, BETA, strict=True))


@cache
def threshold() -> float:
    """The quantile of y above which ``BASE_RATE`` of all rows lie, from a million draws."""
    rng = np.random.default_rng(0)
    return float(np.quantile(score(rng.normal(size=1_000_000)) + rng.normal(0, NOISE, 1_000_000), 1 - BASE_RATE))


def draw(cosine: float, seed: int, *, known: float = 1.0, signal: int = 16, noise: int = 16, rows: Draw | None = None) -> Drawn:
    """A data set without ids and with ``signal + noise`` dense columns.

    The label of the second task is known in a share ``known`` of the train rows, and in all validation and test rows. One seed gives the
    same inputs, noise, first task and order of columns at every cosine. The labels that a smaller ``known`` leaves are among those of a
    larger one.
    """
    rng, rows = np.random.default_rng([seed, 18]), rows or Draw()
    weights, order = weight_vectors(rng, signal, cosine), rng.permutation(signal + noise)
    splits, scores = {}, {}
    for name, count in rows._asdict().items():
        x = rng.normal(size=(count, signal + noise))
        scores[name] = score(x[:, :signal] @ weights.T)
        labels = (scores[name] + rng.normal(0, NOISE, (count, 2)) > threshold()).astype(np.float32)
        unknown = rng.permutation(count)[round(known * count) :]
        if name == "train":
            labels[unknown, 1] = np.nan
        splits[name] = PackedSplit(name, np.zeros((count, 0), np.int32), x[:, order].astype(np.float32), labels, None, None)
    names = [f"{SIGNAL} {column}" for column in range(signal)] + [f"noise {column}" for column in range(noise)]
    meta = PackedMeta(
        name="synthetic", tasks=TASKS, funnel=False, relation="independent", fields={}, dense=tuple(names[column] for column in order),
        group=None, has_weight=False, rows=rows._asdict(), vocabulary={}, scaling={}, checksums={}, format_version=1, digest="synthetic",
    )  # fmt: skip
    return Drawn(PackedDataset(Path("synthetic"), meta, splits), weights, scores)
