"""What a run refuses before it starts; the folder then stays free."""

from dataclasses import replace

import numpy as np
import pytest

from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import train
from tests.training.tiny import tiny_config, write_table

UNKNOWN = ", but every label of the validation rows of tiny is unknown; use a larger"


def with_split(dataset, name, change):
    """The data set with the arrays of one split replaced; ``change`` maps the split to the new ones."""
    split = dataset.split(name)
    return replace(dataset, splits=dict(dataset.splits) | {name: replace(split, **change(split))})


def no_rows(split):
    return {key: getattr(split, key)[:0] for key in ("ids", "dense", "labels", "weight", "group")}


def no_labels(split):
    return {"labels": np.full_like(split.labels, np.nan)}


def no_positives(split):
    return {"labels": np.zeros_like(split.labels)}


def refused(error, config, folder, dataset=None):
    with pytest.raises(error) as caught:
        train(config, folder, dataset=dataset)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"loss__task_weight": [1, 2, 3]}, "loss.task_weight has 3 values, expected one for each of the 2 tasks: click, buy"),
        ({"loss__task_weight": [1, 2], "loss__weighting": "uncertainty"}, "remove one of them"),
        ({"device": "abacus"}, "device is 'abacus', expected auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but PyTorch"),
        ({"backend": "abacus"}, "backend='abacus': expected one of"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(schema, tmp_path, overrides, expected):
    assert expected in refused(ConfigError, tiny_config(schema, **overrides), tmp_path / "run")


def test_an_unknown_data_set_is_refused(tmp_path):
    assert "unknown data set 'absent'" in refused(DataError, tiny_config("absent"), tmp_path / "run")


def test_sample_weights_without_a_weight_column_are_refused(tmp_path):
    config = tiny_config(write_table(tmp_path, weight=None), loss__sample_weight=True)
    assert "loss.sample_weight is true, but tiny has no weight column" in refused(ConfigError, config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "change", "monitor", "error", "expected"),
    [
        ("train", no_rows, "auc", DataError, "tiny has no train rows"),
        ("valid", no_rows, "auc", DataError, "tiny has no valid rows"),
        ("test", no_rows, "auc", DataError, "tiny has no test rows"),
        ("train", no_labels, "auc", DataError, "every label of the train rows is unknown"),
        ("valid", no_labels, "auc", ConfigError, "early_stopping.monitor is 'auc'" + UNKNOWN),
        ("valid", no_labels, "log_loss", ConfigError, "early_stopping.monitor is 'log_loss'" + UNKNOWN),
        ("valid", no_positives, "auc", ConfigError, "early_stopping.monitor is 'auc', which no task has"),
    ],
)
def test_rows_on_which_a_run_would_fail_later_are_refused_with_fitting_advice(
    schema, dataset, tmp_path, name, change, monitor, error, expected
):
    config = tiny_config(schema, early_stopping__monitor=monitor)
    message = refused(error, config, tmp_path / "run", with_split(dataset, name, change))
    assert expected in message
    assert ("use log_loss" in message) == (change is no_positives)


def test_validation_rows_of_one_class_can_be_monitored_by_log_loss(schema, dataset, tmp_path):
    config = tiny_config(schema, early_stopping__monitor="log_loss", optimiser__epochs=1)
    assert train(config, tmp_path / "run", dataset=with_split(dataset, "valid", no_positives))["valid"]["click"]["auc"] is None


def test_rows_that_break_the_funnel_are_refused_under_chain_unless_allowed(tmp_path):
    table = write_table(tmp_path, broken_funnel=True, funnel=False)
    with pytest.raises(DataError, match="tiny: the model refuses the batch of step 1: "):
        train(tiny_config(table, model__relation="chain"), tmp_path / "run")
    allowed = {"model__relation": "chain", "loss__strict_funnel": False, "optimiser__epochs": 1}
    train(tiny_config(table, **allowed), tmp_path / "allowed")
