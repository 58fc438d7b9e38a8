"""What the report says about differences: over the seeds, over resamples of the test rows, and in ranks and distances."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.figure import distances
from bench.quality.differences import over_rows, over_seeds, weighted_auc
from bench.quality.models import SHIPPED
from bench.quality.report import mean_ranks


def labels_and_scores(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.3).astype(np.float32)
    return labels, np.round(labels + rng.normal(size=rows), 1)  # rounded: many ties


def test_the_weighted_auc_of_a_resample_is_that_of_its_rows():
    labels, scores = labels_and_scores()
    rows = np.random.default_rng(1).integers(0, len(labels), len(labels))
    weights = np.bincount(rows, minlength=len(labels)).astype(np.float64)
    assert weighted_auc(labels, scores)(weights) == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)


def test_the_bootstrap_separates_a_better_model_and_not_an_equal_one():
    labels, good = labels_and_scores()
    rng = np.random.default_rng(2)
    unknown = labels.copy()
    unknown[:20] = np.nan
    scores = {"ours": np.stack([good, good + 0.1 * rng.normal(size=good.size)]), "noise": rng.normal(size=(2, good.size))}
    scores["same"] = scores["ours"] * 2
    bounds = over_rows(unknown, scores, "ours", 200)
    assert bounds["noise"][1] < 0
    assert bounds["same"] == (0, 0)
    assert "ours" not in bounds


def test_the_paired_difference_takes_each_seed_by_itself():
    mean, t = over_seeds([0.8, 0.7, 0.9], [0.7, 0.6, 0.7])
    assert mean == pytest.approx(0.4 / 3)
    assert t == pytest.approx(mean / (np.std([0.1, 0.1, 0.2], ddof=1) / 3**0.5))


def test_one_seed_has_no_standard_error():
    assert over_seeds([0.8], [0.7]) == (pytest.approx(0.1), None)


def test_a_mean_rank_counts_the_models_ahead_of_those_that_every_set_has():
    aucs = {"ple": [[0.7, 0.8], [0.6, 0.6]], "dcrnn": [[0.6, 0.9], [0.7, 0.7]], "trees": [[0.6, 0.5], []]}
    assert mean_ranks(aucs) == {"ple": [1.5, 2.0], "dcrnn": [1.5, 1.0]}


def test_a_distance_is_the_mean_difference_with_the_interval_of_students_t():
    aucs = {"ple": [0.7, 0.8], SHIPPED: [0.6, 0.9]}
    rows = [{"data": "a", "model": name, "size": "one", "test": {"click": {"auc": auc}}} for name, auc in aucs.items()]
    mean, half = distances({"rows": rows})["a"]["PLE"]
    assert mean == pytest.approx(0.0)
    assert half == pytest.approx(12.706 * 0.1, rel=1e-4)  # of two differences, 0.1 and -0.1, the standard error is 0.1
