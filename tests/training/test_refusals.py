"""What a run refuses before it starts; no folder is then left."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from dcrnn_fast.errors import ConfigError, DataError, RunFolderError
from dcrnn_fast.training import Report, train
from dcrnn_fast.training.data import check_rows, prepare_data
from tests.refusals import refused, row, rows
from tests.training.tiny import tiny_config, write_table


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


def no_weight(split):
    return {"weight": np.zeros_like(split.weight)}


def a_run(config, folder, dataset=None):
    """A run in ``folder``, of which, if it is refused, neither the folder nor one around it may be left."""
    before = set(folder.rglob("*"))
    try:
        train(config, folder / "new" / "run", dataset=dataset)
    finally:
        assert set(folder.rglob("*")) == before


def of_settings(overrides, schema, tmp_path):
    a_run(tiny_config(schema, **overrides), tmp_path)


def of_rows(name, change, overrides, schema, dataset, tmp_path):
    a_run(tiny_config(schema, **overrides), tmp_path, with_split(dataset, name, change))


def of_a_table(changes, overrides, tmp_path):
    table = write_table(tmp_path / "data", **changes)
    (tmp_path / "data" / "none.csv").write_text((tmp_path / "data" / "tiny.csv").read_text().partition("\n")[0] + "\n")
    a_run(tiny_config(table, **overrides), tmp_path)


def in_a_folder(place, schema, tmp_path):
    (tmp_path / "file").write_text("")
    train(tiny_config(schema), tmp_path / place)


TRUNK = {"model__sharing": "trunk", "model__scenario": "shape"}
ONE_TASK = {"funnel": False, "tasks": [{"name": "click", "column": "clicked"}]}
TABLE = [
    *rows("settings", of_settings, ConfigError, cases=[
        ({"loss__task_weight": [1, 2, 3]}, "loss.task_weight has 3 values, expected one for each of the 2 tasks: click, buy"),
        ({"loss__task_weight": [1, 2], "loss__weighting": "uncertainty"}, "remove one of them"),
        ({"device": "abacus"}, "device is 'abacus', expected auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but PyTorch"),
        ({"backend": "abacus"}, "backend='abacus': expected one of"),
        ({"model__scenario": "weekday"}, "does not fit the data set tiny: scenario='weekday': expected one of 'shape', 'colour', 'size'"),
        ({"model__scenario": "shape"}, "does not fit the data set tiny: scenario='shape' with sharing='rows'"),
        (TRUNK | {"model__share_ratio": 0.8}, r"share_ratio=0\.8 with scenario='shape': expected at most 0\.75"),
        *(({"loss__cvr": "ipw", "model__relation": relation}, f"loss.cvr is 'ipw', .* but model.relation is '{relation}'; it needs .*chain")
          for relation in ("independent", "transfer")),
        ({"loss__cvr": "ips"}, r"loss\.cvr is 'ips': Input should be 'entire_space' or 'ipw'"),
        *(({"negative_rate": 0.1, "model__relation": relation}, f"with 2 tasks and relation='{relation}'.* Set model.relation=chain")
          for relation in ("independent", "transfer")),
    ]),
    row("a file of vectors that is absent", partial(of_settings, {"pretrained__colour": "absent.parquet"}), DataError, "cannot be read"),
    row("an unknown data set", lambda tmp_path: a_run(tiny_config("absent"), tmp_path), DataError, "unknown data set 'absent'"),
    *rows("rows on which a run would fail later", of_rows, None, cases=[
        ("train", no_rows, {}, DataError, "tiny has no train rows"),
        ("valid", no_rows, {}, DataError, "tiny has no valid rows"),
        ("train", no_labels, {}, DataError, "every label of the train rows is unknown"),
        *(("valid", no_labels, {"early_stopping__monitor": monitor}, ConfigError, f"monitor is '{monitor}', but every label .* unknown")
          for monitor in ("auc", "log_loss")),
        ("valid", no_positives, {"early_stopping__monitor": "auc"}, ConfigError, "monitor is 'auc', which no task has.*use log_loss"),
        ("train", no_weight, {"loss__sample_weight": True}, DataError, "is unknown or has the weight 0"),
        ("valid", no_weight, {"loss__sample_weight": True}, ConfigError, "is unknown or has the weight 0"),
    ]),
    *rows("a table", of_a_table, None, cases=[
        ({"weight": None}, {"loss__sample_weight": True}, ConfigError, "loss.sample_weight is true, but tiny has no weight column"),
        ({"files": {"train": "tiny.csv", "test": "none.csv"}}, {}, DataError, "tiny has no test rows; correct `files` or `split`"),
        ({"funnel": False}, {"loss__cvr": "ipw"}, ConfigError, "the relation of tiny is 'independent'; it needs several tasks"),
        (ONE_TASK | {"relation": "chain"}, {"loss__cvr": "ipw"}, ConfigError, "tiny has the task click alone; it needs several tasks"),
    ]),
    *rows("a place that cannot be a run's", in_a_folder, RunFolderError, cases=[
        ("", "is not empty and holds no run; choose an empty --output folder"),
        *((place, f"{place}.*(choose another --output|use a folder that can be written)") for place in ("file", "file/run", "/sys/a_run")),
    ]),
    row("a finished run", lambda schema, finished: train(tiny_config(schema), finished, resume=False),
        RunFolderError, "already holds a finished run; go on with --resume, or choose another --output"),
]  # fmt: skip

test_it_is_refused = refused(TABLE)


def test_rows_that_seem_too_few_train(schema, dataset, tmp_path):
    one = {"optimiser__epochs": 1}
    metrics = train(tiny_config(schema, **one), tmp_path / "no test", dataset=with_split(dataset, "test", no_rows))
    assert (metrics["test"], metrics["valid"]["click"]["rows"]) == ({}, 105)
    config = tiny_config(schema, early_stopping__monitor="log_loss", **one)
    assert train(config, tmp_path / "one class", dataset=with_split(dataset, "valid", no_positives))["valid"]["click"]["auc"] is None
    table = write_table(tmp_path / "one task", rows=300, **ONE_TASK)
    assert set(train(tiny_config(table, **one), tmp_path / "run")["test"]) == {"click"}


def test_a_refused_run_leaves_an_empty_folder_that_the_user_made(tmp_path):
    with pytest.raises(DataError, match="unknown data set"):
        train(tiny_config("absent"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_funnel_is_refused_under_chain_and_the_advice_works(tmp_path, command):
    table = write_table(tmp_path / "data", broken_funnel=True, funnel=False)
    config = tiny_config(table, model__relation="chain", optimiser__epochs=1)
    with pytest.raises(DataError) as caught:
        a_run(config, tmp_path)
    message = str(caught.value)
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

    def three_tasks(last):
        data = with_split(dataset, "train", lambda split: {"labels": np.tile(np.float32([[1, 1, 0]]), (len(split), 1))})
        data.split("train").labels[-1] = last
        return replace(data, meta=replace(data.meta, tasks=("see", "click", "buy")))

    config = tiny_config(schema)
    for labels, said in (([0, nan, 1], "buy=1 and see=0"), ([nan, 0, 1], "buy=1 and click=0")):
        with pytest.raises(DataError, match=f"1 of the .* the first is row [0-9,]+, with {said}"):
            check_rows(config, three_tasks(labels))
    check_rows(config, three_tasks([1, nan, 1]))


def test_a_report_is_told_how_far_the_data_is_prepared(tmp_path, monkeypatch):
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
