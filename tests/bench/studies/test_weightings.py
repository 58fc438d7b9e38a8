"""What a weighting changes is the difference to fixed weights of the same model, data and seed."""

import pytest

from bench.studies.weightings import minus_fixed, tables


def row(model, weighting, seed, auc, data="hillstrom"):
    return {"data": data, "setting": f"{model}, {weighting}", "seed": seed, "valid": {"auc": auc, "log_loss": 0.5}}


ROWS = [
    *(row("dcrnn", "fixed", seed, 0.60 + seed / 100) for seed in (1, 2)),
    *(row("dcrnn", "famo", seed, 0.61 + seed / 100) for seed in (1, 2)),
    *(row("mmoe", "fixed", seed, 0.70) for seed in (1, 2)),
    row("mmoe", "famo", 1, 0.73),
    row("mmoe", "famo", 2, None),
]


def test_differences_are_paired_by_seed_and_averaged_over_the_models():
    assert minus_fixed(ROWS, "hillstrom", {"dcrnn", "mmoe"}, "famo") == pytest.approx([0.02, 0.01])


def test_a_run_that_diverged_counts_for_nothing():
    assert minus_fixed(ROWS, "hillstrom", {"mmoe"}, "famo") == pytest.approx([0.03])


def test_data_that_were_not_run_are_not_measured():
    lines = {line[0]: line[1:] for line in tables({"rows": ROWS})[0][1]}
    assert lines["FAMO, DCRNN"] == ["not measured", "+0.0100 (0.0000)", "not measured", "not measured"]
