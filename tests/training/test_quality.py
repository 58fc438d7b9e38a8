"""The default configuration on the embedded census data: good enough to be worth the name."""

from dcrnn_fast.training import load_config, train


def test_the_default_configuration_reaches_the_census_targets(tmp_path):
    """On the official test rows, which chose nothing: the epoch and the configuration were chosen on validation rows."""
    metrics = train(load_config(None, {"data": "census-income", "threads": 1}), tmp_path / "run")["test"]
    assert metrics["income"]["auc"] >= 0.955
    assert metrics["never_married"]["auc"] >= 0.9945
