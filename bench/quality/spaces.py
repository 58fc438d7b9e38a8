"""The search spaces: what a tuning trial may choose. Trial 0 of every model takes the defaults written here.

All networks have ``COMMON``. ``OWN`` adds what makes the size of each. Gradient-boosted trees share no option with a network; each
library has a space of its own. L2 of logistic regression is no part of its space: every trial chooses it. The constant has nothing to tune.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dcrnn_fast.support import defaults as usual


class Number(NamedTuple):
    """A number in [low, high], drawn uniformly, or uniformly by its logarithm."""

    low: float
    high: float
    default: float
    log: bool = False


class Choice(NamedTuple):
    """One of some values."""

    values: tuple[Any, ...]
    default: Any


Space = dict[str, Number | Choice]

COMMON: Space = {
    "lr": Number(5e-4, 2e-2, 3e-3, log=True),
    "weight_decay": Number(1e-3, 3.0, 0.3, log=True),
    "dropout": Number(0.0, 0.5, usual.DROPOUT),
    "embedding_init_std": Number(3e-3, 0.3, usual.EMBEDDING_INIT_STD, log=True),
    "epochs": Number(1, 8, 6, log=True),
    "oov_dropout": Choice((0.0, 0.25, 1.0), 1.0),
    "dense_bins": Choice((0, 32), usual.DENSE_BINS),
    "weighting": Choice(("fixed", "uncertainty"), "fixed"),
}
"""Of every network. ``weighting`` "fixed" gives each task's loss the weight 1; "uncertainty" learns the weights (Kendall et al. 2018)."""

WIDTH: Space = {"width": Choice((32, 64, 128), 64)}
"""Of the first hidden layer of towers and experts; the second is half as wide."""
STEPS: Space = {"steps": Choice((1, 2, 3), usual.STEPS)}
NORM: Space = {"batch_norm": Choice((False, True), False)}
"""torch-rechub puts batch normalisation into every hidden layer. On tables of rare ids it takes away what a small start of the embeddings
gives, so trial 0 leaves it out, and the others choose."""
RATIO: Space = {"share_ratio": Choice((0.25, 0.5, 0.75), usual.SHARE_RATIO)}
RANK: Space = {"rank": Choice((16, 32, 64), usual.RANK)}

OWN: dict[str, Space] = {
    "dcrnn": WIDTH | STEPS | RANK | RATIO,
    "dcrnn-trunk": WIDTH | STEPS | RANK | RATIO,
    "dcrnn-hard": WIDTH | STEPS | RANK,
    "dcrnn-untied": WIDTH | STEPS | RANK | RATIO,
    "dcrnn-full": WIDTH | STEPS | RATIO,
    "single-task": WIDTH | STEPS | RANK,
    "dcnv2": WIDTH | {"layers": Choice((1, 2, 3), 2)},
    "gdcn": WIDTH | {"layers": Choice((1, 2, 3), 2)},
    "shared-bottom": {"width": Choice((64, 128, 256), 128)} | NORM,
    "mmoe": WIDTH | NORM | {"experts": Choice((2, 4, 8), 4)},
    "ple": WIDTH | NORM | {"levels": Choice((1, 2), 1), "own_experts": Choice((1, 2, 4), 2), "shared_experts": Choice((1, 2, 4), 1)},
    "aitm": WIDTH | NORM,
    "esmm": WIDTH | NORM,
}

TRAINER: Space = {
    "optimiser.lr": Number(1e-3, 2e-2, 5e-3, log=True),
    "optimiser.weight_decay": Number(1e-3, 3.0, 0.3, log=True),
    "optimiser.epochs": Choice((None, 1, 2, 4, 8, 16, 32), None),
    "oov_dropout": Choice(("auto", 0.25, 1.0), "auto"),
    "model.dropout": COMMON["dropout"],
    "model.steps": STEPS["steps"],
    "model.rank": RANK["rank"],
    "model.share_ratio": RATIO["share_ratio"],
    "model.first_order": Choice((False, True), True),
    "width": Choice((32, 64, 128), 64),
    "loss.weighting": COMMON["weighting"],
}
"""Of DCRNN in its own trainer, by the keys of its configuration; trial 0 is the trainer's defaults. ``width`` is as in ``WIDTH``."""

TREES: Space = {
    "learning_rate": Number(0.02, 0.3, 0.1, log=True),
    "max_leaf_nodes": Choice((7, 15, 31, 63, 127), 31),
    "min_samples_leaf": Number(5, 200, 20, log=True),
    "l2_regularization": Number(1e-3, 10.0, 1e-2, log=True),
    "max_features": Number(0.2, 1.0, 1.0),
}
LIGHTGBM: Space = {
    "learning_rate": Number(0.02, 0.3, 0.1, log=True),
    "num_leaves": Choice((7, 15, 31, 63, 127), 31),
    "min_data_in_leaf": Number(5, 200, 20, log=True),
    "lambda_l2": Number(1e-3, 10.0, 1e-2, log=True),
    "feature_fraction": Number(0.2, 1.0, 1.0),
    "cat_smooth": Number(1.0, 50.0, 10.0, log=True),
    "cat_l2": Number(1.0, 300.0, 10.0, log=True),
    "max_cat_threshold": Choice((8, 32, 128), 32),
}
CATBOOST: Space = {
    "learning_rate": Number(0.02, 0.3, 0.1, log=True),
    "depth": Choice((4, 6, 8), 6),
    "l2_leaf_reg": Number(0.3, 30.0, 3.0, log=True),
    "random_strength": Number(0.1, 10.0, 1.0, log=True),
    "rsm": Number(0.2, 1.0, 1.0),
    "one_hot_max_size": Choice((2, 30), 2),
    "max_ctr_complexity": Choice((1, 2, 4), 4),
}
LOGISTIC: Space = {"bins": Choice((8, 16, 32, 64, 128), 32), "conditional": Choice((False, True), False)}
"""``conditional`` is that of :class:`bench.quality.trees.Trees`."""

WHOLE = ("epochs", "min_samples_leaf", "min_data_in_leaf")
"""Numbers that are whole."""


def defaults(space: Space) -> dict[str, Any]:
    """The setting of trial 0."""
    return {name: part.default for name, part in space.items()}
