"""A search judges by validation rows alone, goes on where it was stopped, and gives a configuration that trains."""

import dataclasses
import errno
import json
import math
import os
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


def test_the_result_is_a_configuration_that_trains_and_the_validation_rows_judge_it_alike(schema, tmp_path):
    result = tune(tiny_config(schema, optimiser__epochs=1), tmp_path / "tuned", trials=2)
    config = load_config(tmp_path / "tuned" / "tuned.yaml")
    valid = train(config, tmp_path / "run")["valid"]
    assert result["losses"][0] == statistics.fmean(valid[task]["shifted_log_loss"] for task in ("click", "buy"))
    assert {key: dict(tuning.flat(config.to_dict()))[key] for key in result["setting"]} == result["setting"]


def test_the_command_shows_the_first_trial_and_a_line_for_each_run_and_train_takes_what_it_writes(schema, command, tmp_path):
    given = [f"--set={key}={value}" for key, value in tiny_values(schema, **{"optimiser.epochs": 1}).items() if key != "data"]
    code, out, err = command("tune", "--data", schema, "--trials", 2, "--output", tmp_path / "tuned", *given)
    assert code == 0, err
    assert "epoch 1/1" in err
    assert re.findall(r"^(.*): valid shifted_log_loss 0\.\d{5}$", err, flags=re.MULTILINE) == [
        *(f"trial {number}/2, seed 0" for number in (1, 2)),
        *(f"trial {number}/2, seed {seed}" for number in (1, 2) for seed in (1, 2)),
    ]
    assert re.search("^(The|No trial has a better) mean shifted_log_loss", out)
    assert out.endswith(f"Configuration: {tmp_path / 'tuned' / 'tuned.yaml'}\n")
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


def test_a_key_that_was_set_is_not_searched_even_if_it_was_set_to_its_default(schema, quick, tmp_path):
    quick(far_from_optimum)
    tune(load_config(None, {"data": str(schema), "model.steps": 2, "oov_dropout": 0.5}), tmp_path / "tuned", trials=4)
    assert {*tuning.SPACE} - {*settings(tmp_path / "tuned")[3]} == {"model.steps", "oov_dropout"}
    written = load_config(tmp_path / "tuned" / "tuned.yaml")
    assert (written.model.steps, written.oov_dropout) == (2, 0.5)


def test_the_weighting_is_not_searched_beside_fixed_weights_of_the_tasks(schema, quick, tmp_path):
    quick(far_from_optimum)
    tune(load_config(None, {"data": str(schema), "loss.task_weight": [1, 2]}), tmp_path / "tuned", trials=2)
    assert {*tuning.SPACE} - {*settings(tmp_path / "tuned")[0]} == {"loss.weighting"}


@pytest.mark.parametrize(
    ("sharing", "left_out"),
    [("rows", {"model.share_ratio", "loss.weighting"}), ("trunk", {"loss.weighting"})],
    ids=["rows, of which one task has all", "a trunk, which reads no other unit"],
)
def test_one_task_has_nothing_to_share_or_to_weigh(sharing, left_out, quick, tmp_path):
    schema = write_table(tmp_path, funnel=False, tasks=[{"name": "click", "column": "clicked"}])
    quick(far_from_optimum)
    tune(load_config(None, {"data": str(schema), "model.sharing": sharing}), tmp_path / "tuned", trials=2)
    assert {*tuning.SPACE} - {*settings(tmp_path / "tuned")[0]} == left_out


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


def test_more_trials_go_on_after_fewer_and_nothing_is_trained_twice(config, quick, tmp_path):
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=4)
    before = kept(tmp_path / "tuned")
    tune(config, tmp_path / "tuned", trials=6, report=(notes := Notes()))
    assert [line.partition(":")[0] for line in notes.lines][:2] == ["trial 5/6, seed 0", "trial 6/6, seed 0"]
    assert [trial["losses"][: len(old["losses"])] for trial, old in zip(kept(tmp_path / "tuned"), before, strict=False)] == [
        old["losses"] for old in before
    ]


def test_fewer_trials_than_before_are_refused_and_the_result_stays(config, quick, tmp_path):
    quick(far_from_optimum)
    tune(config, tmp_path / "tuned", trials=6)
    before = files_below(tmp_path / "tuned")
    with pytest.raises(ConfigError, match=r"trials=4: .*trials\.json holds 6; give at least as many, or choose another --output"):
        tune(config, tmp_path / "tuned", trials=4)
    assert files_below(tmp_path / "tuned") == before


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


def test_a_search_goes_on_in_a_folder_with_a_file_that_a_killed_process_left_half_written(config, quick, tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / ".trials.json.77.tmp").write_text("{")
    quick(far_from_optimum)
    assert tune(config, tmp_path / "tuned", trials=2)["trial"]


def test_a_search_and_a_run_cannot_share_a_folder(schema, quick, tmp_path):
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


def test_a_search_is_not_a_run_to_compare_with(schema, quick, finished, tmp_path, command):
    quick(far_from_optimum)
    tune(tiny_config(schema), tmp_path / "tuned", trials=2)
    said = f"error: {tmp_path / 'tuned'} holds no run (config.yaml is missing); name the --output folder of a training run\n"
    assert command("compare", finished, tmp_path / "tuned") == (2, "", said)


def full(config):
    """A trial's run meets a full disk."""
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")
    except OSError as error:
        raise RunFolderError("the disk is full; free some space and go on with --resume") from error


@pytest.mark.parametrize("place", ["the folder", "a trial's run"])
def test_on_a_full_disk_the_advice_is_what_a_search_can_do(config, quick, tmp_path, monkeypatch, place):
    if place == "the folder":
        quick(far_from_optimum)
        fill_disk(monkeypatch)
    else:
        quick(full)
    with pytest.raises(RunFolderError, match=r"No space left on device.*start the same command again") as caught:
        tune(config, tmp_path / "tuned", trials=2)
    assert "--resume" not in str(caught.value)


def test_a_result_that_meets_a_full_disk_is_written_by_the_same_command(config, quick, tmp_path, monkeypatch):
    quick(far_from_optimum)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "write_json", lambda *arguments: fill_disk(patch))
        with pytest.raises(RunFolderError, match=r"tuned\.yaml: .*free some space and start the same command again"):
            tune(config, tmp_path / "tuned", trials=2)
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
    assert "No trial has a better mean shifted_log_loss of 3 seeds on the validation rows than the defaults" in result["summary"][0]
    assert load_config(tmp_path / "tuned" / "tuned.yaml") == load_config(None, {"data": config.data})


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
    assert result["summary"][0].startswith(f"The mean auc of 3 seeds on the validation rows is {-result['losses'][0]:.5f} by trial")


def diverging(diverges):
    """A loss of 0.5, but for configurations of which ``diverges`` says so."""

    def loss(config):
        if diverges(config):
            raise TrainingDivergedError("the loss is not finite")
        return 0.5

    return loss


def test_a_diverged_trial_is_kept_and_not_chosen(config, quick, tmp_path):
    quick(diverging(lambda config: config.optimiser.lr != 0.005))
    result = tune(config, tmp_path / "tuned", trials=4, report=(notes := Notes()))
    assert result["trial"] == 1
    assert [trial["losses"][0] for trial in kept(tmp_path / "tuned")] == [0.5, None, None, None]
    assert "trial 2/4, seed 0: valid shifted_log_loss diverged" in notes.lines


def test_a_trial_that_diverges_with_one_seed_is_not_chosen(config, quick, tmp_path):
    quick(diverging(lambda config: config.optimiser.lr != 0.005 and config.seed == 1))
    tune(config, tmp_path / "tuned", trials=2)
    assert kept(tmp_path / "tuned")[1]["losses"] == [0.5, None, 0.5]
    assert load_config(tmp_path / "tuned" / "tuned.yaml").optimiser.lr == 0.005


def test_where_every_trial_diverges_there_is_no_result(config, quick, tmp_path):
    quick(diverging(lambda config: True))
    with pytest.raises(TrainingDivergedError, match=r"all of the best trials diverged; set a lower optimiser\.lr"):
        tune(config, tmp_path / "tuned", trials=3)
    assert not (tmp_path / "tuned" / "tuned.yaml").exists()


@pytest.mark.parametrize("monitor", ["log_loss", "auc"])
def test_defaults_that_diverge_are_named_in_place_of_a_number(schema, quick, tmp_path, monitor):
    quick(diverging(lambda config: config.optimiser.lr == 0.005))
    config = load_config(None, {"data": str(schema), "early_stopping.monitor": monitor})
    result = tune(config, tmp_path / "tuned", trials=3)
    means = "0.50000 by trial 2, diverged by the defaults"
    assert result["summary"][0] == f"The mean {config.monitored} of 3 seeds on the validation rows is {means}"
    assert result["defaults"] == [None] * 3
    assert not any("gain" in line for line in result["summary"])


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
