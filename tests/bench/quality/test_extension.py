"""A report that grows: a size or a model is added without new trials, and what was measured before stays."""

import json

import pytest

from bench.quality import __main__ as quality
from bench.quality import extension, report
from bench.quality.protocol import Protocol
from bench.quality.runner import Plan, run
from bench.quality.work import Subject
from bench.results import COMMITTED
from dcrnn_fast.errors import ConfigError

MEDIUM = Subject("hillstrom", "dcrnn", "medium")
SETTING = {
    "lr": 0.01, "weight_decay": 0.1, "dropout": 0.0, "embedding_init_std": 0.1, "epochs": 1, "oov_dropout": 0.0, "dense_bins": 0,
    "weighting": "fixed", "width": 32, "steps": 1, "rank": 16, "share_ratio": 0.25,
}  # fmt: skip


def report_of(*subjects, machine="here", speeds=(), tuned_at=None, setting=SETTING, auc=0.7):
    rows = [{**subject._asdict(), "task": task} for subject in subjects for task in ("visit", "conversion")]
    chosen = [{**subject._asdict(), "setting": setting} for subject in subjects]
    metrics = {"auc": auc, "log_loss": 0.5, "calibration": 1.0, "constant_log_loss": 0.6}
    tests = {"test": {"visit": metrics, "conversion": metrics}}
    return {
        "machine": machine,
        "protocol": {"trials": 20, "tuned_at": tuned_at},
        "spaces": {subject.model: {} for subject in subjects},
        "chosen": chosen,
        "rows": rows,
        "speeds": [subject._asdict() for subject in speeds],
        "runs": [{**subject._asdict(), "seed": seed, **tests} for subject in subjects for seed in (1, 2)],
    }


def test_a_new_size_takes_the_reports_setting_and_gets_no_trials(tmp_path):
    settings = extension.settings(report_of(MEDIUM))
    plan = Plan(tmp_path, ("hillstrom",), ("dcrnn",), ("small",), 3, 1, quality.QUICK, tuned_at="medium", settings=settings)
    assert run(plan, workers=1) == []
    (row,) = (json.loads(path.read_text()) for path in tmp_path.glob("hillstrom/*/*.json"))
    assert (row["size"], row["setting"]) == ("small", SETTING)


def test_a_model_that_the_report_lacks_gets_its_trials(tmp_path):
    settings = extension.settings(report_of(MEDIUM))
    plan = Plan(tmp_path, ("hillstrom",), ("dcnv2",), ("medium",), 1, 1, quality.QUICK, settings=settings)
    assert run(plan, workers=1) == []
    assert {path.name for path in tmp_path.glob("hillstrom/dcnv2-medium/*.json")} == {"trial-000.json", "seed-1.json"}


def test_both_reports_stand_side_by_side_in_the_order_of_models_and_sizes():
    small, later = MEDIUM._replace(size="small"), MEDIUM._replace(model="ple")
    both = extension.extended(report_of(later, MEDIUM), report_of(small, tuned_at="medium"))
    assert [extension.subject_of(row) for row in both["chosen"]] == [small, MEDIUM, later]
    assert [row["task"] for row in both["rows"]] == ["visit", "conversion"] * 3
    assert report.of_tuned_size(both)["rows"] == [row for row in both["rows"] if row["size"] == "medium"]


def test_what_is_measured_again_replaces_the_earlier_result():
    again = report_of(MEDIUM)
    again["runs"][0]["seconds"] = 2.0
    assert extension.extended(report_of(MEDIUM), again)["runs"] == again["runs"]


@pytest.mark.parametrize(("machine", "kept"), [("here", True), ("another", False)])
def test_earlier_speeds_stay_only_beside_those_that_the_same_machine_measured(machine, kept):
    small = MEDIUM._replace(size="small")
    both = extension.extended(report_of(MEDIUM, machine=machine, speeds=[MEDIUM]), report_of(small, speeds=[small]))
    assert {extension.subject_of(row) for row in both["speeds"]} == ({MEDIUM, small} if kept else {small})
    assert both["machine"] == "here"


def test_without_new_speeds_the_earlier_ones_stay_and_so_does_the_name_of_their_machine():
    both = extension.extended(report_of(MEDIUM, machine="another", speeds=[MEDIUM]), report_of(MEDIUM._replace(size="small")))
    assert (both["machine"], both["speeds"]) == ("another", [MEDIUM._asdict()])


def test_the_speed_of_another_setting_is_dropped():
    again = report_of(MEDIUM, setting={**SETTING, "width": 64})
    assert extension.extended(report_of(MEDIUM, speeds=[MEDIUM]), again)["speeds"] == []


def test_a_new_model_is_compared_with_the_earlier_runs_of_the_tuned_size():
    before = extension.extended(report_of(MEDIUM, tuned_at="medium"), report_of(MEDIUM._replace(size="small"), auc=0.6))
    both = extension.extended(before, report_of(Subject("hillstrom", "trees", "one"), auc=0.8))
    rows = {extension.subject_of(row).model: row for row in both["rows"] if row["size"] != "small"}
    assert rows["trees"]["auc_difference"] == pytest.approx(0.1)
    assert "auc_difference" not in rows["dcrnn"]


def test_the_size_at_which_the_earlier_report_was_tuned_is_remembered():
    both = extension.extended(report_of(MEDIUM, tuned_at="medium"), report_of(MEDIUM._replace(model="ple")))
    assert both["protocol"]["tuned_at"] == "medium"


def test_a_report_of_another_protocol_is_refused(tmp_path):
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(report_of(MEDIUM) | {"protocol": {"batch_size": 64}}))
    with pytest.raises(ConfigError, match=r"another protocol: batch_size was 64 and is 512"):
        extension.read(path, Protocol())


@pytest.mark.parametrize("name", ["quality", "quality_untuned"])
def test_the_committed_reports_are_of_todays_protocol(name):
    assert extension.settings(extension.read(COMMITTED / f"{name}.json", Protocol()))


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}'])
def test_a_file_that_is_no_report_is_refused(text, tmp_path):
    path = tmp_path / "quality.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is no report of this command"):
        extension.read(path, Protocol())
