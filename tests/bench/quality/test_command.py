"""The command: it runs every kind of model, keeps what the report has, and says in one line what it cannot do."""

import dataclasses
import json

import pytest

from bench.quality import __main__ as quality
from bench.quality import tune
from bench.quality.models import MODELS, Subject
from bench.quality.protocol import Protocol
from bench.quality.report import of_set, subject_of
from bench.quality.tune import Plan, run
from bench.results import COMMITTED
from dcrnn_fast.errors import ConfigError

CHEAP = ("dcrnn", "trees", "logistic")


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path, ("hillstrom",), CHEAP, trials=1, seeds=2, protocol=quality.QUICK)


def test_a_report_keeps_earlier_rows_and_replaces_those_trained_again(plan):
    assert run(plan, 0) == []
    empty = quality.earlier(plan.root / "none.json", quality.QUICK)
    first = quality.gather(plan, empty, 10, 0.0)
    assert [row["model"] for row in first["rows"]] == list(CHEAP)
    assert set(first["rows"][1]["test"]["visit"]) == {"auc", "log_loss", "calibration", "interval"}
    assert first["rows"][0]["speed"]["bfloat16"]["training_rows_per_second"] > 0
    later = json.loads(json.dumps(first))
    later["rows"][0]["seconds"], later["rows"][1]["seconds"] = [-1.0], [-1.0]
    again = quality.gather(dataclasses.replace(plan, models=("dcrnn",)), later, 0, None)
    assert [row["seconds"] == [-1.0] for row in again["rows"]] == [False, True, False]
    assert "| logistic regression for each task | " in of_set(again, "hillstrom")


def test_a_finished_subject_is_trained_again_if_its_protocol_changes(plan, monkeypatch):
    plan = dataclasses.replace(plan, models=("dcrnn",))
    trained, real = [], tune.fit
    monkeypatch.setattr(tune, "fit", lambda *values, **options: (trained.append(1), real(*values, **options))[1])
    for protocol in (quality.QUICK, quality.QUICK, dataclasses.replace(quality.QUICK, batch_size=32)):
        assert run(dataclasses.replace(plan, protocol=protocol), 0) == []
    assert len(trained) == 4


def test_a_model_that_fails_is_named_and_does_not_stop_the_others(plan, monkeypatch):
    def broken(*_):
        raise RuntimeError("no memory left")

    monkeypatch.setitem(MODELS, "dcnv2", dataclasses.replace(MODELS["dcnv2"], build=broken))
    assert run(dataclasses.replace(plan, models=("dcnv2", "logistic")), 0) == ["hillstrom, dcnv2, medium: RuntimeError: no memory left"]
    assert list(plan.root.glob("hillstrom-logistic-one-*.json"))


def test_another_size_takes_the_setting_of_the_tuned_one(tmp_path):
    before = json.loads((COMMITTED / "quality.json").read_text(encoding="utf-8"))
    plan = quality.plan_of(quality.parser().parse_args(["--size", "small", "--data", "hillstrom", "--models", "dcrnn", "trees"]), before)
    assert plan.subjects() == [Subject("hillstrom", "dcrnn", "small")]
    tuned = next(row for row in before["rows"] if subject_of(row) == ("hillstrom", "dcrnn", "medium"))
    assert plan.settings["hillstrom", "dcrnn", "small"] == tuned["setting"]
    with pytest.raises(ConfigError, match="the report lacks hillstrom, dcrnn, small"):
        dataclasses.replace(plan, settings={}).subjects()


@pytest.mark.parametrize("name", ["quality", "quality_untuned"])
def test_the_committed_reports_are_of_todays_protocol(name):
    assert quality.earlier(COMMITTED / f"{name}.json", Protocol())["rows"]
    with pytest.raises(ConfigError, match=r"another protocol: batch_size was 512 and is 64"):
        quality.earlier(COMMITTED / f"{name}.json", Protocol(batch_size=64))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--models", "mmo"], "--models mmo: expected dcrnn"), (["--data", "movielens-100k", "--models", "trees"], "needs the RecBole wheel")],
)
def test_a_users_mistake_is_one_line(arguments, words, capsys, tmp_path):
    assert quality.main([*arguments, "--work", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
