"""The command: it runs every kind of model, writes its files, and says in one line what it cannot do."""

import dataclasses
import json

import pytest

from bench.quality import __main__ as quality
from bench.quality import data_sets, models, report
from bench.quality.data_sets import write_log
from bench.quality.models import MODELS
from bench.quality.runner import Plan, run
from bench.quality.speed import flops
from bench.quality.trees import KINDS
from dcrnn_fast import DCRNN
from tests.bench.quality.toy import toy


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The quick command's files outlive it here."""

    class Folder:
        def __enter__(self):
            return str(tmp_path)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(quality.tempfile, "TemporaryDirectory", Folder)
    return tmp_path


def test_the_quick_command_runs_models_of_each_kind_and_writes_every_report(kept, capsys):
    trees = {name for name in KINDS if MODELS[name].installed}
    assert quality.main(["--quick", "--models", "dcrnn", "dcnv2", *trees]) == 0
    result = json.loads((kept / "quality.json").read_text())
    assert {row["model"] for row in result["rows"]} == {"dcrnn", "dcnv2", *trees}
    assert {row["task"] for row in result["rows"]} == {"visit", "conversion"}
    assert all(row["bfloat16"]["training_rows_per_second"] > 0 for row in result["speeds"] if row["model"] not in trees)
    assert all(row["float32"]["request_microseconds"] > 0 for row in result["speeds"])
    assert (kept / "quality.md").read_text().strip().endswith(report.as_markdown(result))
    assert "DCN-v2 and towers" in capsys.readouterr().out
    assert {path.name for path in kept.glob("*.svg")} == {"quality_training.svg", "quality_auc.svg"}


def test_the_quick_command_runs_a_model_of_the_library(kept):
    pytest.importorskip("torch_rechub")
    assert quality.main(["--quick", "--models", "esmm"]) == 0
    result = json.loads((kept / "quality.json").read_text())
    assert {row["model"] for row in result["rows"]} == {"esmm"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "mmo"], "--models 'mmo': expected dcrnn"),
        (["--data", "movielens-100k", "--models", "constant"], "needs the RecBole wheel"),
        (["--quick", "--extend", "quality.json"], "--quick trains a few steps that no report can keep: leave out --extend"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, words, capsys, tmp_path):
    assert quality.main([*arguments, "--work", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_model_whose_package_is_missing_is_refused_and_the_default_leaves_it_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(models, "find_spec", lambda package: None)
    assert quality.main(["--models", "lightgbm", "ple", "dcrnn", "--work", str(tmp_path)]) == 2
    assert "--models lightgbm ple need lightgbm, torch-rechub: run pip install 'dcrnn_fast[quality]'" in capsys.readouterr().err
    plan = quality.plan_of(quality.parser().parse_args([]))
    assert not {"lightgbm", "catboost", "ple"} & set(plan.models)
    assert "without " in capsys.readouterr().out


def test_a_table_is_written_once_and_then_read(tmp_path, monkeypatch):
    """Processes that train at the same time read it: none may write it again."""
    small = {"rows": 300, "users": 30, "items": 20}
    monkeypatch.setattr(data_sets, "write_log", lambda seed, folder: write_log(seed, folder, **small))
    first = data_sets.load("id-log", tmp_path)
    monkeypatch.setattr(data_sets, "write_log", lambda *_: pytest.fail("the table was written again"))
    assert data_sets.load("id-log", tmp_path).meta.digest == first.meta.digest
    assert first.split("test").group is not None


def test_sizes_that_share_their_trials_are_tuned_once(tmp_path):
    plan = Plan(tmp_path, ("hillstrom",), ("dcrnn", "constant"), ("small", "large"), 1, 1, quality.QUICK, tuned_at="medium")
    assert run(plan, workers=1) == []
    found = {
        path.relative_to(tmp_path / "hillstrom").as_posix() for path in tmp_path.rglob("*.json") if path.parent.parent.name == "hillstrom"
    }
    trials = {"dcrnn-medium/trial-000.json", "constant-one/trial-000.json"}
    assert found == trials | {"dcrnn-small/seed-1.json", "dcrnn-large/seed-1.json", "constant-one/seed-1.json"}


def test_a_model_that_fails_is_named_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no memory left")

    monkeypatch.setitem(MODELS, "dcnv2", dataclasses.replace(MODELS["dcnv2"], build=broken))
    plan = Plan(tmp_path, ("hillstrom",), ("dcnv2", "constant"), ("small",), 1, 1, quality.QUICK)
    assert run(plan, workers=1) == ["hillstrom, dcnv2, small: RuntimeError: no memory left"]
    assert "failed: hillstrom, dcnv2, small" in capsys.readouterr().err
    assert (tmp_path / "hillstrom" / "constant-one" / "seed-1.json").is_file()


def test_the_flops_of_the_recurrence_are_those_of_its_plan():
    data = toy(dense=0)
    model = DCRNN(data.meta.fields, embedding_dim=4, tasks=("click", "buy"), tower_dims=(8,), rank=None)
    dim = 12
    towers = 2 * 2 * (dim * 8 + 8)
    assert flops(model, data) == model.plan.cost().flops + towers
