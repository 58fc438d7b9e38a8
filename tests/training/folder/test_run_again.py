"""`train` in a folder that holds a run: a cell of a notebook runs twice, and `overwrite` replaces what is there."""

import pytest

from dcrnn_fast.errors import ConfigError, DataError, RunFolderError
from dcrnn_fast.training import train
from tests.training.runs import Notes
from tests.training.tiny import files_below, tiny_config, write_table

SHORT = {"optimiser__epochs": 1}


def test_a_second_call_gives_the_result_of_the_finished_run(schema, dataset, finished):
    notes, before = Notes(), files_below(finished)
    first, second = train(tiny_config(schema), finished, resume=True), train(tiny_config(schema), finished, report=notes)
    assert first == second == train(tiny_config(schema), finished, dataset=dataset)
    assert first["data"]["digest"] == dataset.meta.digest
    assert "nothing is left to train" in notes.lines[-1]
    assert files_below(finished) == before


def test_another_configuration_is_an_error_that_names_overwrite(schema, finished):
    before = files_below(finished)
    with pytest.raises(ConfigError, match=r"seed is 7 and was 0; .*overwrite=True"):
        train(tiny_config(schema, seed=7), finished)
    assert files_below(finished) == before


def test_other_rows_are_an_error_that_names_overwrite(tmp_path):
    table = write_table(tmp_path / "table", rows=300)
    train(tiny_config(table, **SHORT), tmp_path / "run")
    write_table(tmp_path / "table", rows=299)
    with pytest.raises(DataError, match=r"was trained on other rows than tiny has; .*overwrite=True"):
        train(tiny_config(table, **SHORT), tmp_path / "run")


def test_overwrite_replaces_the_run_and_leaves_other_files(schema, copied):
    (copied / "export.pt2").write_text("mine")
    (copied / "calibration.json").write_text("{}")
    result = train(tiny_config(schema, seed=7, **SHORT), copied, overwrite=True)
    assert (result["config"]["seed"], result["train"]["steps"]) == (7, 8)
    assert train(tiny_config(schema, seed=7, **SHORT), copied) == result
    assert (copied / "export.pt2").read_text() == "mine"
    assert not (copied / "calibration.json").exists()
    assert sorted(path.stem for path in (copied / "checkpoints").iterdir()) == ["step-00000006", "step-00000008"]
    assert len(list((copied / "tensorboard").iterdir())) == 1


def test_overwrite_spares_the_run_that_init_names_under_another_name(schema, copied, tmp_path):
    (tmp_path / "link").symlink_to(copied)
    with pytest.raises(ConfigError, match="overwrite=True would delete the run"):
        train(tiny_config(schema, **SHORT), tmp_path / "link", init=copied, overwrite=True)


@pytest.mark.parametrize("named", ["notes.txt", "config.yaml"])
def test_overwrite_leaves_a_folder_that_is_no_run(schema, tmp_path, named):
    (tmp_path / named).write_text("learning_rate: 3")
    (tmp_path / "metrics.json").write_text("mine")
    with pytest.raises((RunFolderError, ConfigError), match=r"holds no run|learning_rate"):
        train(tiny_config(schema), tmp_path, overwrite=True)
    assert files_below(tmp_path).keys() - {".lock"} == {named, "metrics.json"}


def test_a_run_that_is_refused_replaces_nothing(schema, copied):
    before = files_below(copied)
    with pytest.raises(ConfigError, match="monitor"):
        train(tiny_config(schema, early_stopping__monitor="aucc"), copied, overwrite=True)
    with pytest.raises(DataError, match="there is no file"):
        train(tiny_config("nowhere.yaml"), copied, overwrite=True)
    assert files_below(copied) == before


def test_a_run_that_another_needs_is_not_overwritten(schema, finished):
    for options in ({"resume": True}, {"init": finished}):
        with pytest.raises(ConfigError, match="overwrite=True would delete the run in"):
            train(tiny_config(schema), finished, overwrite=True, **options)


def test_a_kill_while_a_run_is_replaced_leaves_one_that_resumes(schema, copied, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(schema, seed=7), copied, overwrite=True)
    monkeypatch.undo()
    assert train(tiny_config(schema), copied, resume=True)["config"]["seed"] == 0
    assert train(tiny_config(schema, seed=7, **SHORT), copied, overwrite=True)["config"]["seed"] == 7
