"""What a run refuses before it starts; no folder is then left."""

from dataclasses import replace

import numpy as np
import pytest

from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import Report, train
from dcrnn_fast.training.data import check_rows, prepare_data
from tests.training.tiny import tiny_config, write_table

UNKNOWN = ", but every label of the validation rows of tiny is unknown; hold out more rows"


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
    """The message of a run that is refused in ``folder``, of which neither the folder nor one around it may be left."""
    before = set(folder.parent.rglob("*"))
    with pytest.raises(error) as caught:
        train(config, folder / "new" / "run", dataset=dataset)
    assert set(folder.parent.rglob("*")) == before
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


def test_a_table_without_test_rows_is_refused(tmp_path):
    table = write_table(tmp_path, files={"train": "tiny.csv", "test": "none.csv"})
    (tmp_path / "none.csv").write_text((tmp_path / "tiny.csv").read_text().partition("\n")[0] + "\n")
    assert "tiny has no test rows; correct `files`" in refused(DataError, tiny_config(table), tmp_path / "run")


def test_a_data_set_that_is_given_may_have_no_test_rows(schema, dataset, tmp_path):
    metrics = train(tiny_config(schema, optimiser__epochs=1), tmp_path / "run", dataset=with_split(dataset, "test", no_rows))
    assert metrics["test"] == {}
    assert metrics["valid"]["click"]["rows"] == 105


def test_validation_rows_of_one_class_can_be_monitored_by_log_loss(schema, dataset, tmp_path):
    config = tiny_config(schema, early_stopping__monitor="log_loss", optimiser__epochs=1)
    assert train(config, tmp_path / "run", dataset=with_split(dataset, "valid", no_positives))["valid"]["click"]["auc"] is None


def test_a_broken_funnel_is_refused_under_chain_before_the_first_step_and_the_advice_works(tmp_path, command):
    table = write_table(tmp_path / "data", broken_funnel=True, funnel=False)
    config = tiny_config(table, model__relation="chain", optimiser__epochs=1)
    message = refused(DataError, config, tmp_path / "run")
    labels = prepare_data(config).split("train").labels
    broken = np.flatnonzero(labels[:, 1] > labels[:, 0])
    assert f"tiny: {len(broken)} of the {len(labels)} train rows break the funnel click -> buy; " in message
    assert f"the first is row {broken[0] + 1}, with buy=1 and click=0." in message
    for advice in ("model.relation=independent", "loss.strict_funnel=false"):
        assert f"--set {advice}" in message
        (tmp_path / "run.yaml").write_text(config.to_yaml())
        output = tmp_path / advice.partition("=")[0]
        arguments = ["train", "--config", tmp_path / "run.yaml", "--output", output, "--quiet"]
        if "strict" in advice:
            assert command(*arguments)[0] == 2
        assert command(*arguments, "--set", advice) == (0, "", "")


def test_a_funnel_is_broken_across_an_unknown_label_and_not_by_one(schema, dataset, tmp_path):
    nan = np.float32(np.nan)

    def three_tasks(row):
        data = with_split(dataset, "train", lambda split: {"labels": np.tile(np.float32([[1, 1, 0]]), (len(split), 1))})
        data.split("train").labels[-1] = row
        return replace(data, meta=replace(data.meta, tasks=("see", "click", "buy")))

    config = tiny_config(schema)
    for row, said in (([0, nan, 1], "buy=1 and see=0"), ([nan, 0, 1], "buy=1 and click=0")):
        with pytest.raises(DataError, match=f"1 of the .* the first is row [0-9,]+, with {said}"):
            check_rows(config, three_tasks(row))
    check_rows(config, three_tasks([1, nan, 1]))


def test_a_refused_run_leaves_an_empty_folder_that_the_user_made(tmp_path):
    with pytest.raises(DataError, match="unknown data set"):
        train(tiny_config("absent"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_told_how_far_the_data_is_prepared_and_nothing_once_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("DCRNN_FAST_CACHE", str(tmp_path / "cache"))

    class Told(Report):
        def __init__(self):
            self.counts = {}

        def preparing(self, what, done, total):
            self.counts[what] = done, total

    config, first, second = tiny_config(write_table(tmp_path)), Told(), Told()
    train(config, tmp_path / "first", report=first)
    rows = sum(prepare_data(config).meta.rows.values())
    assert list(first.counts) == ["reading rows", "learning columns", "encoding rows"]
    assert first.counts["encoding rows"] == (rows, rows)
    train(config, tmp_path / "second", report=second)
    assert second.counts == {}


def no_weight(split):
    return {"weight": np.zeros_like(split.weight)}


@pytest.mark.parametrize(("name", "error"), [("train", DataError), ("valid", ConfigError)])
def test_rows_that_all_weigh_nothing_are_refused(schema, dataset, tmp_path, name, error):
    message = refused(error, tiny_config(schema, loss__sample_weight=True), tmp_path / "run", with_split(dataset, name, no_weight))
    assert "is unknown or has the weight 0" in message
