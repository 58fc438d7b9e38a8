"""What the headline and the figure say of the final runs: ranks and distances, seed by seed."""

import pytest

from bench.quality.models import SHIPPED
from bench.quality.plots import distances
from bench.quality.report import mean_ranks

AUCS = {
    ("a", "ple"): (0.7, 0.8), ("a", "dcrnn"): (0.6, 0.9), ("a", "trees"): (0.6, 0.5),
    ("b", "ple"): (0.6, 0.6), ("b", "dcrnn"): (0.7, 0.7), ("c", SHIPPED): (0.5, 0.5),
}  # fmt: skip


def result(aucs):
    rows = [{"data": data, "model": model, "size": "medium"} for data, model in aucs]
    runs = [
        {**row, "seed": seed, "test": {"click": {"auc": auc}}}
        for row, of_case in zip(rows, aucs.values(), strict=True)
        for seed, auc in enumerate(of_case)
    ]
    return {"rows": rows, "runs": runs, "protocol": {"tuned_at": None}, "speeds": []}


def test_a_mean_rank_counts_the_models_ahead_of_those_that_every_data_set_has():
    models = [(model, "medium") for model in ("ple", "dcrnn", "trees")]
    found = mean_ranks(result(AUCS), ["a", "b"], models)
    assert found == {("ple", "medium"): [1.5, 2.0], ("dcrnn", "medium"): [1.5, 1.0]}


def test_a_distance_is_the_mean_difference_from_dcrnn_with_the_interval_of_students_t():
    title, found = distances(result({case: aucs for case, aucs in AUCS.items() if case[1] != SHIPPED}))
    assert title == "DCRNN"
    mean, half = found["a"]["PLE"]
    assert mean == pytest.approx(0.0)
    assert half == pytest.approx(12.706 * 0.1, rel=1e-4)  # of two differences, 0.1 and -0.1, the standard error is 0.1


def test_the_trainer_is_compared_with_where_it_has_runs():
    aucs = {("a", SHIPPED): (0.5, 0.5), ("a", "dcrnn"): (0.6, 0.6)}
    title, found = distances(result(aucs))
    assert "untuned" in title
    assert found["a"]["DCRNN"] == pytest.approx((0.1, 0.0))
