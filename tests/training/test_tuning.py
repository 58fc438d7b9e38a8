"""A search judges by validation rows alone, goes on where it was stopped, and gives a configuration that trains."""

import dataclasses
import json
import math
import re
import statistics

import pytest

from dcrnn_fast.errors import CheckpointError, ConfigError, MissingExtra, RunFolderError, TrainingDivergedError
from dcrnn_fast.training import load_config, train, tune, tuning
from tests.refusals import check, row, rows
from tests.training.runs import Notes, StoppedError
from tests.training.tiny import files_below, tiny_config, tiny_values, write_table

pytest.importorskip("optuna")


@pytest.fixture
def quick(monkeypatch):
    """Trials that compute ``quick(config)``, the validation log loss, in place of a training; returns a setter of that function."""

    def set_loss(loss):
        def pretend(config, output, *, dataset, report):
            value = loss(config)
            return {"valid": {task: {"log_loss": value, "auc": 1 - value} for task in dataset.meta.tasks}}

        monkeypatch.setattr(tuning, "train", pretend)

    return set_loss


def far_from_optimum(config):
    """A loss whose least value is at a learning rate of 0.01 and at 3 steps; every seed adds its own luck."""
    luck = math.sin(1e4 * config.optimiser.lr + config.seed) / 1000
    return 0.5 + abs(math.log(config.optimiser.lr / 0.01)) / 10 + (3 - config.model.steps) / 10 + luck


@pytest.fixture
def config(schema):
    """Of all keys that are searched, none is set."""
    return load_config(None, {"data": str(schema)})


def settings(folder):
    """The settings of the trials, in their order."""
    return [json.loads(path.read_text())["setting"] for path in sorted(folder.glob("trial-*-seed-0.json"))]


class Unreadable:
    """Rows that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"a trial reads {name} of the test rows")

    def __len__(self):
        raise AssertionError("a trial counts the test rows")


def test_no_trial_reads_a_test_row(schema, dataset, tmp_path, monkeypatch):
    poisoned = dataclasses.replace(dataset, splits={**dataset.splits, "test": Unreadable()})
    monkeypatch.setattr(tuning, "prepare_data", lambda config: poisoned)
    config = tiny_config(schema, optimiser__epochs=1)
    with pytest.raises(AssertionError, match="test rows"):  # an ordinary run does
        train(config, tmp_path / "run", dataset=poisoned)
    result = tune(config, tmp_path / "tuned", trials=2)
    assert all(0 < loss < 1 for loss in result["losses"])


def test_the_result_is_a_configuration_that_trains_and_the_validation_rows_judge_it_alike(schema, tmp_path):
    result = tune(tiny_config(schema, optimiser__epochs=1), tmp_path / "tuned", trials=2)
    config = load_config(tmp_path / "tuned" / "config.yaml")
    valid = train(config, tmp_path / "run")["valid"]
    assert result["losses"][0] == statistics.fmean(valid[task]["log_loss"] for task in ("click", "buy"))
    assert {key: dict(tuning.flat(config.to_dict()))[key] for key in result["setting"]} == result["setting"]


def test_the_command_shows_the_first_trial_and_a_line_for_each_run_and_train_takes_what_it_writes(schema, command, tmp_path):
    given = [f"--set={key}={value}" for key, value in tiny_values(schema, **{"optimiser.epochs": 1}).items() if key != "data"]
    code, out, err = command("tune", "--data", schema, "--trials", 2, "--output", tmp_path / "tuned", *given)
    assert code == 0, err
    assert "epoch 1/1" in err
    assert re.findall(r"^(.*): valid log_loss 0\.\d{5}$", err, flags=re.MULTILINE) == [
        *(f"trial {number}/2, seed 0" for number in (1, 2)),
        *(f"trial {number}/2, seed {seed}" for number in (1, 2) for seed in (1, 2)),
    ]
    assert re.search("^(Mean|No trial has a better mean) log_loss", out)
    assert out.endswith(f"Configuration: {tmp_path / 'tuned' / 'config.yaml'}\n")
    code, out, err = command("train", "--config", tmp_path / "tuned" / "config.yaml", "--output", tmp_path / "run")
    assert (code, "tiny, test rows" in out) == (0, True), err
    assert "Mean" not in command("tune", "--data", schema, "--trials", 2, "--output", tmp_path / "tuned", "--quiet", *given)[1]


def test_the_first_trial_is_the_defaults_and_each_other_one_differs(config, quick, tmp_path):
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=12)
    first, *others = settings(tmp_path / "tuned")
    defaults = dict(tuning.flat(load_config(None, {"data": "-"}).to_dict()))
    assert first == {key: defaults[key] for key in tuning.SPACE}
    assert len({json.dumps(setting) for setting in [first, *others]}) == 12


def test_a_key_that_was_set_is_not_searched_even_if_it_was_set_to_its_default(schema, quick, tmp_path):
    quick(far_from_optimum)
    tune(load_config(None, {"data": str(schema), "model.steps": 2, "oov_dropout": 0.5}), tmp_path / "tuned", trials=4)
    assert {*tuning.SPACE} - {*settings(tmp_path / "tuned")[3]} == {"model.steps", "oov_dropout"}
    written = load_config(tmp_path / "tuned" / "config.yaml")
    assert (written.model.steps, written.oov_dropout) == (2, 0.5)


@pytest.mark.parametrize(
    ("values", "left_out"),
    [({"loss.task_weight": [1, 2]}, "loss.weighting"), ({"model.scenario": "city", "model.sharing": "trunk"}, "model.share_ratio")],
    ids=["weights of the tasks", "a scenario, whose ratio and that of sharing add up to at most 1"],
)
def test_a_key_whose_values_another_one_may_exclude_is_not_searched(values, left_out, schema, quick, tmp_path):
    quick(far_from_optimum)
    tune(load_config(None, {"data": str(schema), **values}), tmp_path / "tuned", trials=2)
    assert {*tuning.SPACE} - {*settings(tmp_path / "tuned")[0]} == {left_out}


def test_later_trials_are_better_than_the_random_ones_before(config, quick, tmp_path):
    quick(far_from_optimum)
    result = tune(config, tmp_path / "tuned", trials=40)
    losses = [json.loads(path.read_text())["loss"] for path in sorted((tmp_path / "tuned").glob("trial-*-seed-0.json"))]
    assert statistics.median(losses[25:]) < statistics.median(losses[1:10]) - 0.03
    assert statistics.fmean(result["losses"]) < statistics.fmean(result["defaults"]) - 0.1


@pytest.mark.parametrize("runs", [0, 1, 5, 11, 12, 15])
def test_a_search_that_was_stopped_goes_on_to_the_same_files(config, quick, tmp_path, runs):
    """After so many of its 12 trials and the 8 or 6 runs with other seeds."""
    quick(far_from_optimum)
    whole = tune(config, tmp_path / "whole", trials=12)
    made = []

    def stopped(config):
        if len(made) == runs:
            raise StoppedError
        made.append(config)
        return far_from_optimum(config)

    quick(stopped)
    with pytest.raises(StoppedError):
        tune(config, tmp_path / "stopped", trials=12)
    assert len(list((tmp_path / "stopped").iterdir())) == runs
    made = []
    quick(lambda config: made.append(config) or far_from_optimum(config))
    assert tune(config, tmp_path / "stopped", trials=12) == whole
    files = files_below(tmp_path / "whole")
    assert files_below(tmp_path / "stopped") == files
    assert len(made) == len(files) - 1 - runs, "it trained again what was there"


def test_more_trials_go_on_after_fewer_and_nothing_is_trained_twice(config, quick, tmp_path):
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=4)
    before = files_below(tmp_path / "tuned")
    tune(config, tmp_path / "tuned", trials=6, report=(notes := Notes()))
    after = files_below(tmp_path / "tuned")
    assert [line.partition(":")[0] for line in notes.lines][:2] == ["trial 5/6, seed 0", "trial 6/6, seed 0"]
    assert {name: after[name] for name in before if name != "config.yaml"} == {
        name: data for name, data in before.items() if name != "config.yaml"
    }


def test_the_mean_of_the_seeds_decides_and_not_one_lucky_seed(config, quick, tmp_path):
    def loss(config):
        lucky = config.model.steps == 3
        return (0.1 if config.seed == 0 else 0.9) if lucky else 0.5 - config.model.dropout / 100

    quick(loss)
    result = tune(config, tmp_path / "tuned", trials=8)
    assert any(setting["model.steps"] == 3 for setting in settings(tmp_path / "tuned"))
    assert result["setting"]["model.steps"] != 3


@pytest.mark.parametrize("better", [0.0, -0.1], ids=["as good", "worse"])
def test_where_no_trial_is_better_the_defaults_are_the_result(config, quick, tmp_path, better):
    quick(lambda config: 0.5 if config.optimiser.lr == 0.005 else 0.5 - better)
    result = tune(config, tmp_path / "tuned", trials=5)
    assert result["trial"] == 1
    assert "No trial has a better mean log_loss of 3 seeds on the validation rows than the defaults" in result["summary"][0]
    assert load_config(tmp_path / "tuned" / "config.yaml") == load_config(None, {"data": config.data})


@pytest.mark.parametrize(("luck", "said"), [(0.001, "is more"), (0.1, "may be luck")])
def test_a_gain_within_the_spread_of_the_seeds_may_be_luck(config, quick, tmp_path, luck, said):
    quick(lambda config: 0.5 + luck * config.seed - 0.02 * (config.model.steps - 2))
    result = tune(config, tmp_path / "tuned", trials=8)
    assert result["summary"][1] == f"Seeds of one setting differ by up to {2 * luck:.5f}: the gain of 0.02000 {said}"
    assert "model.steps is 3 and was 2" in result["summary"][2]


def test_an_auc_is_made_as_large_as_possible(schema, quick, tmp_path):
    quick(lambda config: 0.5 + config.model.dropout)  # the AUC is 1 less that
    result = tune(load_config(None, {"data": str(schema), "early_stopping.monitor": "auc"}), tmp_path / "tuned", trials=8)
    assert result["setting"]["model.dropout"] == min(setting["model.dropout"] for setting in settings(tmp_path / "tuned"))
    assert result["summary"][0].startswith(f"Mean auc of 3 seeds on the validation rows: {-result['losses'][0]:.5f} by trial")


def test_a_diverged_trial_is_kept_and_not_chosen(config, quick, tmp_path):
    def diverges(config):
        if config.optimiser.lr != 0.005:
            raise TrainingDivergedError("the loss is not finite")
        return 0.5

    quick(diverges)
    result = tune(config, tmp_path / "tuned", trials=4, report=(notes := Notes()))
    assert result["trial"] == 1
    assert "trial 2/4, seed 0: diverged" in notes.lines


def stopped_search(config, quick, folder):
    quick(lambda config: 0.5)
    tune(config, folder, trials=2)


def another_search(changes, config, quick, tmp_path):
    stopped_search(config, quick, tmp_path / "tuned")
    tune(load_config(None, {"data": config.data, **changes}), tmp_path / "tuned", trials=2)


def other_rows(config, quick, tmp_path):
    stopped_search(load_config(None, {"data": str(write_table(tmp_path))}), quick, tmp_path / "tuned")
    tune(load_config(None, {"data": str(write_table(tmp_path, seed=9))}), tmp_path / "tuned", trials=2)


def damaged(text, config, quick, tmp_path):
    stopped_search(config, quick, tmp_path / "tuned")
    (tmp_path / "tuned" / "trial-002-seed-0.json").write_text(text)
    tune(config, tmp_path / "tuned", trials=2)


def without_optuna(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "find_spec", lambda name: None)
    tune(config, tmp_path)


def with_torchrun(config, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    tune(config, tmp_path)


TABLE = [
    *rows("numbers of trials", lambda trials, config, tmp_path: tune(config, tmp_path, trials=trials), None, cases=[
        (1, ValueError, "trials=1: expected at least 2"), (2.0, TypeError, "trials=2.0: expected an int"), (True, TypeError, "trials=True"),
    ]),
    row("optuna is not installed", without_optuna, MissingExtra, r"tune needs optuna; run: pip install 'dcrnn_fast\[tune\]'"),
    row("a run to start from", lambda finished, config, tmp_path: tune(config.model_copy(update={"init": str(finished)}), tmp_path),
        ConfigError, "leave init out"),
    row("several processes", with_torchrun, ConfigError, "start it without torchrun"),
    row("a configuration of all keys", lambda finished, tmp_path: tune(load_config(finished / "config.yaml"), tmp_path),
        ConfigError, r"sets all keys that tune searches, optimiser\.lr, .*; leave some of them out"),
    row("a run's folder", lambda config, copied: tune(config, copied), RunFolderError, "holds a run; choose another --output"),
    row("a file", lambda config, copied: tune(config, copied / "metrics.json"), RunFolderError, "a file stands where the folder should be"),
    *rows("another search", another_search, ConfigError, within=r"trial-001-seed-0\.json is of another search: {}; choose", cases=[
        ({"model.rank": 4}, "model.rank is 4 and was 32"), ({"seed": 0, "model.rank": 32}, "other rows or keys"),
    ]),
    row("other rows", other_rows, ConfigError, "of another search: other rows or keys"),
    *rows("damaged trials", damaged, CheckpointError, values=["", "{", "[]", "{}", '{"search": {"config": {"lr": 1}}}'],
        said=r"trial-002-seed-0\.json cannot be read \(.*\); delete it"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "said"), TABLE)
def test_it_is_refused(request, call, error, said):
    check(request, call, error, said)
