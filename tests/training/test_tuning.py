"""A search judges by validation rows alone, goes on where it was stopped, and gives a configuration that trains."""

import dataclasses
import json
import math
import re
import statistics
from functools import partial

import pytest

from dcrnn_fast.errors import CheckpointError, ConfigError, MissingExtra, RunFolderError, TrainingDivergedError
from dcrnn_fast.support.locks import locked
from dcrnn_fast.training import load_config, train, tune, tuning
from tests.damage import fill_disk
from tests.refusals import refused, row, rows
from tests.training.runs import Notes, StoppedError, interrupted
from tests.training.tiny import files_below, tiny_config, tiny_values, write_table

pytest.importorskip("optuna")


@pytest.fixture
def quick(monkeypatch):
    """Trials that compute ``quick(config)``, the validation log loss, in place of a training; returns a setter of that function."""

    def set_loss(loss):
        def pretend(config, output, *, dataset, report):
            value = loss(config)
            return {"valid": {task: {"shifted_log_loss": value, "auc": 1 - value} for task in dataset.meta.tasks}}

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


def kept(folder):
    """The trials of a search, in their order."""
    return json.loads((folder / "trials.json").read_text())["trials"]


def settings(folder):
    """The settings of the trials, in their order."""
    return [trial["setting"] for trial in kept(folder)]


class Unreadable:
    """Rows that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"a trial reads {name} of the test rows")

    def __len__(self):
        raise AssertionError("a trial counts the test rows")


def test_no_trial_reads_a_test_row(schema, dataset, tmp_path, monkeypatch):
    poisoned = dataclasses.replace(dataset, splits={**dataset.splits, "test": Unreadable()})
    monkeypatch.setattr(tuning, "prepare_data", lambda config, **_: poisoned)
    config = tiny_config(schema, optimiser__epochs=1)
    with pytest.raises(AssertionError, match="test rows"):  # an ordinary run does
        train(config, tmp_path / "run", dataset=poisoned)
    result = tune(config, tmp_path / "tuned", trials=2)
    assert all(0 < loss < 1 for loss in result["losses"])


def test_the_result_trains_and_the_validation_rows_judge_it_alike(schema, tmp_path):
    result = tune(tiny_config(schema, optimiser__epochs=1), tmp_path / "tuned", trials=2)
    config = load_config(tmp_path / "tuned" / "tuned.yaml")
    valid = train(config, tmp_path / "run")["valid"]
    assert result["losses"][0] == statistics.fmean(valid[task]["shifted_log_loss"] for task in ("click", "buy"))
    assert {key: dict(tuning.flat(config.to_dict()))[key] for key in result["setting"]} == result["setting"]


def test_the_command_shows_a_line_for_each_run_and_train_takes_its_result(schema, command, tmp_path):
    given = [f"--set={key}={value}" for key, value in tiny_values(schema, **{"optimiser.epochs": 1}).items() if key != "data"]
    code, out, err = command("tune", "--data", schema, "--trials", 2, "--output", tmp_path / "tuned", *given)
    assert code == 0, err
    assert re.findall(r"^(.*): valid shifted_log_loss 0\.\d{5}$", err, flags=re.MULTILINE) == [
        f"trial {number}/2, seed {seed}" for number, seed in ((1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (2, 2))
    ]
    assert str(tmp_path / "tuned" / "tuned.yaml") in out
    code, out, err = command("train", "--config", tmp_path / "tuned" / "tuned.yaml", "--output", tmp_path / "run")
    assert (code, "tiny, test rows" in out) == (0, True), err
    assert "mean" not in command("tune", "--data", schema, "--trials", 2, "--output", tmp_path / "tuned", "--quiet", *given)[1]


def test_the_first_trial_is_the_defaults_and_each_other_one_differs(config, quick, tmp_path):
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=12)
    first, *others = settings(tmp_path / "tuned")
    defaults = dict(tuning.flat(load_config(None, {"data": "-"}).to_dict()))
    assert first == {key: defaults[key] for key in tuning.SPACE}
    assert len({json.dumps(setting) for setting in [first, *others]}) == 12


ONE_TASK = {"funnel": False, "tasks": [{"name": "click", "column": "clicked"}]}


@pytest.mark.parametrize(
    ("given", "table", "left_out"),
    [
        ({"model.steps": 2, "oov_dropout": 0.5}, {}, {"model.steps", "oov_dropout"}),  # set, though to the defaults
        ({"loss.task_weight": [1, 2]}, {}, {"loss.weighting"}),
        ({"model.sharing": "rows"}, ONE_TASK, {"model.share_ratio", "loss.weighting"}),  # one task has all rows
        ({"model.sharing": "trunk"}, ONE_TASK, {"loss.weighting"}),  # a trunk reads no other unit
    ],
)
def test_what_was_set_and_what_one_task_lacks_is_not_searched(quick, tmp_path, given, table, left_out):
    schema = write_table(tmp_path, **table)
    quick(far_from_optimum)
    tune(load_config(None, {"data": str(schema), **given}), tmp_path / "tuned", trials=4)
    assert {*tuning.SPACE} - {*settings(tmp_path / "tuned")[3]} == left_out
    written = dict(tuning.flat(load_config(tmp_path / "tuned" / "tuned.yaml").to_dict()))
    assert {key: written[key] for key in given if key in written} == {key: value for key, value in given.items() if key in written}


def test_later_trials_are_better_than_the_random_ones_before(config, quick, tmp_path):
    quick(far_from_optimum)
    result = tune(config, tmp_path / "tuned", trials=40)
    losses = [trial["losses"][0] for trial in kept(tmp_path / "tuned")]
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
    assert not runs or sum(len(trial["losses"]) for trial in kept(tmp_path / "stopped")) == runs
    quick(lambda config: made.append(config) or far_from_optimum(config))
    assert tune(config, tmp_path / "stopped", trials=12) == whole
    assert files_below(tmp_path / "stopped") == files_below(tmp_path / "whole")
    assert len(made) == sum(len(trial["losses"]) for trial in kept(tmp_path / "whole")), "it trained again what was there"


def test_more_trials_go_on_after_fewer_and_fewer_are_refused(config, quick, tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / ".trials.json.77.tmp").write_text("{")  # a killed process left it half written
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=4)
    before = kept(tmp_path / "tuned")
    tune(config, tmp_path / "tuned", trials=6, report=(notes := Notes()))
    assert [line.partition(":")[0] for line in notes.lines][:2] == ["trial 5/6, seed 0", "trial 6/6, seed 0"]
    for trial, old in zip(kept(tmp_path / "tuned"), before, strict=False):
        assert trial["losses"][: len(old["losses"])] == old["losses"], "a trial was trained twice"
    files = files_below(tmp_path / "tuned")
    with pytest.raises(ConfigError, match=r"trials=4: .*trials\.json holds 6; give at least as many, or choose another --output"):
        tune(config, tmp_path / "tuned", trials=4)
    assert files_below(tmp_path / "tuned") == files


def test_a_search_keeps_every_other_one_out_of_its_folder(config, quick, tmp_path):
    refusals = []

    def intrude(of_trial):
        if not refusals:
            with pytest.raises(RunFolderError) as caught:
                tune(config, tmp_path / "tuned", trials=2)
            refusals.append(str(caught.value))
        return 0.5

    quick(intrude)
    tune(config, tmp_path / "tuned", trials=2)
    assert refusals == [f"another process writes to {tmp_path / 'tuned'} now; wait until it has ended, or choose another --output"]
    with locked(tmp_path / "tuned" / ".lock") as free:
        assert free


def test_a_search_and_a_run_cannot_share_a_folder(schema, quick, tmp_path, command):
    config = tiny_config(schema, optimiser__epochs=1)
    interrupted(config, tmp_path / "run", 1)
    before = files_below(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"run holds config\.yaml, which is of no search; choose another --output"):
        tune(config, tmp_path / "run", trials=2)
    assert files_below(tmp_path / "run") == before
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=2)
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        train(config, tmp_path / "tuned")
    code, _, err = command("compare", tmp_path / "run", tmp_path / "tuned")
    assert (code, "holds no run" in err) == (2, True)


def test_on_a_full_disk_the_advice_is_what_a_search_can_do(config, quick, tmp_path, monkeypatch):
    quick(far_from_optimum)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(RunFolderError, match=r"No space left on device.*start the same command again") as caught:
            tune(config, tmp_path / "tuned", trials=2)
    assert "--resume" not in str(caught.value)
    assert tune(config, tmp_path / "tuned", trials=2)["trial"]


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
    assert "No trial has a better mean" in result["summary"][0]
    assert load_config(tmp_path / "tuned" / "tuned.yaml") == load_config(None, {"data": config.data})


@pytest.mark.parametrize(("luck", "said"), [(0.001, "is more"), (0.1, "may be luck")])
def test_a_gain_within_the_spread_of_the_seeds_may_be_luck(config, quick, tmp_path, luck, said):
    quick(lambda config: 0.5 + luck * config.seed - 0.02 * (config.model.steps - 2))
    result = tune(config, tmp_path / "tuned", trials=8)
    assert f"differ by up to {2 * luck:.5f}: the gain of 0.02000 {said}" in result["summary"][1]
    assert "model.steps is 3 and was 2" in result["summary"][2]


def test_an_auc_is_made_as_large_as_possible(schema, quick, tmp_path):
    quick(lambda config: 0.5 + config.model.dropout)  # the AUC is 1 less that
    result = tune(load_config(None, {"data": str(schema), "early_stopping.monitor": "auc"}), tmp_path / "tuned", trials=8)
    assert result["setting"]["model.dropout"] == min(setting["model.dropout"] for setting in settings(tmp_path / "tuned"))


@pytest.mark.parametrize(
    ("diverges", "losses", "trial"),
    [
        (lambda config: config.optimiser.lr != 0.005, [[0.5] * 3, [None], [None]], 1),
        (lambda config: config.optimiser.lr != 0.005 and config.seed == 1, [[0.5] * 3, [0.5, None, 0.5], [0.5, None, 0.5]], 1),
        (lambda config: config.optimiser.lr == 0.005, [[None] * 3, [0.5] * 3, [0.5] * 3], 2),
        (lambda config: True, None, None),
    ],
    ids=["all others", "with one seed", "the defaults", "all"],
)
@pytest.mark.parametrize("monitor", ["log_loss", "auc"])
def test_a_diverged_trial_is_kept_and_not_chosen(schema, quick, tmp_path, diverges, losses, trial, monitor):
    def loss(config):
        if diverges(config):
            raise TrainingDivergedError("the loss is not finite")
        return 0.5

    quick(loss)
    config = load_config(None, {"data": str(schema), "early_stopping.monitor": monitor})
    if losses is None:
        with pytest.raises(TrainingDivergedError, match=r"all of the best trials diverged; set a lower optimiser\.lr"):
            tune(config, tmp_path / "tuned", trials=3)
        assert not (tmp_path / "tuned" / "tuned.yaml").exists()
        return
    result = tune(config, tmp_path / "tuned", trials=3)
    assert result["trial"] == trial
    assert [
        [one and abs(one) for one in found["losses"]][: len(own)] for found, own in zip(kept(tmp_path / "tuned"), losses, strict=True)
    ] == losses
    assert ("diverged by the defaults" in result["summary"][0]) == (trial == 2)


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
    (tmp_path / "tuned" / "trials.json").write_text(text)
    tune(config, tmp_path / "tuned", trials=2)


def without_optuna(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dcrnn_fast.errors.find_spec", lambda name: None)
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
    row("values in place of a configuration", lambda schema, tmp_path: tune({"data": str(schema)}, tmp_path),
        TypeError, r"config=\{'data': .*\}: expected a RunConfig, got dict"),
    row("a finished run's folder", lambda config, copied: tune(config, copied), RunFolderError, "which is of no search; choose another"),
    row("a folder of anything else", lambda config, schema: tune(config, schema.parent), RunFolderError,
        r"holds tiny\.csv, which is of no search"),
    row("a file", lambda config, copied: tune(config, copied / "metrics.json"), RunFolderError, "a file stands where the folder should be"),
    *rows("another search", another_search, ConfigError, within=r"trials\.json is of another search: {}; choose", cases=[
        ({"model.rank": 4}, "model.rank is 4 and was 32"), ({"seed": 0, "model.rank": 32}, "other rows or keys"),
    ]),
    row("another search from another seed", partial(another_search, {"seed": 7}), ConfigError, "seed is 7 and was 0"),
    row("other rows", other_rows, ConfigError, "of another search: other rows or keys"),
    *rows("damaged trials", damaged, CheckpointError, values=["", "{", "[]", "{}", '{"search": {"config": {"lr": 1}}}'],
        said=r"trials\.json cannot be read \(.*\); delete it"),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
