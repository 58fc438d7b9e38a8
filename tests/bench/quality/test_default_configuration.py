"""The default configuration: good enough to be worth the name on the embedded census data, and on a table of mostly rare ids."""

import statistics

from bench.id_tables import write_log
from dcrnn_fast.training import load_config, train


def test_the_default_configuration_reaches_the_census_targets(tmp_path):
    """On the official test rows, which chose nothing: the epoch and the configuration were chosen on validation rows."""
    metrics = train(load_config(None, {"data": "census-income", "threads": 1}), tmp_path / "run")["test"]
    assert metrics["income"]["auc"] >= 0.955
    assert metrics["never_married"]["auc"] >= 0.9945


def test_the_defaults_learn_from_rare_ids_and_beat_the_constant(tmp_path):
    """With embeddings that start at embedding_dim ** -0.5, the mean AUC of this log is 0.60."""
    metrics = train(load_config(None, {"data": write_log(0, tmp_path), "threads": 1}), tmp_path / "run")["valid"]
    tasks = metrics["click"], metrics["consume"]
    assert all(task["log_loss"] < task["constant_log_loss"] for task in tasks)
    assert statistics.fmean(task["auc"] for task in tasks) > 0.63


def test_the_default_configuration_learns_from_three_thousand_rows(tmp_path):
    """With 512 rows a step, the run ends within its warm-up and keeps the constant. Of so few rows, one task may gain at another's cost."""
    data = write_log(1, tmp_path, min_count=1, rows=4300, users=150, items=60)
    metrics = train(load_config(None, {"data": data, "threads": 1}), tmp_path / "run")["valid"]
    tasks = metrics["click"], metrics["consume"]
    ours, constant = (statistics.fmean(task[name] for task in tasks) for name in ("log_loss", "constant_log_loss"))
    assert ours < 0.98 * constant
    assert all(task["log_loss"] < 1.01 * task["constant_log_loss"] for task in tasks)
    assert statistics.fmean(task["auc"] for task in tasks) > 0.6
