import json
import shutil

import pandas as pd
import pytest

from dcrnn_fast.data import default_cache_dir, prepare, prepare_folder
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate, load_config, train
from tests.training.tiny import tiny_config, write_table


def test_evaluating_the_run_repeats_its_test_metrics(finished):
    result = evaluate(finished)
    assert result["metrics"] == json.loads((finished / "metrics.json").read_text())["test"]
    of_run = json.loads((finished / "metrics.json").read_text())["valid"]
    for name, entry in evaluate(finished, split="valid")["metrics"].items():
        common = entry.keys() & of_run[name].keys()
        assert common >= {"auc", "log_loss", "gauc"}, name
        assert {key: entry[key] for key in common} == {key: of_run[name][key] for key in common}, name


def test_changed_data_is_not_taken_silently_but_by_name(tmp_path):
    table = write_table(tmp_path, seed=3)
    train(tiny_config(table, optimiser__epochs=1), tmp_path / "run")
    write_table(tmp_path, seed=4)
    with pytest.raises(DataError, match="use --data to evaluate on them anyway"):
        evaluate(tmp_path / "run")
    assert evaluate(tmp_path / "run", data=str(table))["metrics"]["click"]["rows"] == 450


def test_other_data_is_encoded_as_the_runs_own(finished, schema, tmp_path):
    """The rows of the run, with train rows besides that turn the frequencies of the categories and the scale of the sizes around."""
    table = write_table(tmp_path, files={"train": "train.csv", "test": "test.csv"})
    lines = (tmp_path / "tiny.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")
    flipped = [
        f"c{8 - row % 9},s{4 - row % 5},{100 + row % 7},u1,1,{row % 2},0" for row in range(400) for _ in range(1 + row % 9 + row % 5)
    ]
    (tmp_path / "train.csv").write_text("\n".join([lines[0], *flipped]) + "\n")
    whole = write_table(tmp_path / "whole", files={"all": "tiny.csv", "test_fraction": 0.999})
    expected = evaluate(finished, data=str(whole))["metrics"]["click"]
    found = evaluate(finished, data=str(table))["metrics"]["click"]
    assert found["auc"] == pytest.approx(expected["auc"], abs=5e-3)
    assert evaluate(finished, data=str(schema))["metrics"] == evaluate(finished)["metrics"]


def test_a_table_is_read_by_the_runs_schema_as_test_rows(finished, schema, tmp_path):
    def predictions(**options):
        evaluate(finished, predictions=tmp_path / "rows.parquet", **options)
        return pd.read_parquet(tmp_path / "rows.parquet")

    every = pd.concat(predictions(split=split) for split in ("train", "valid", "test"))
    before = set(default_cache_dir().iterdir())
    found = predictions(data=str(schema.parent / "tiny.csv"))
    assert set(default_cache_dir().iterdir()) == before, "a table is not kept"
    columns = list(found.columns)
    pd.testing.assert_frame_equal(found.sort_values(columns, ignore_index=True), every.sort_values(columns, ignore_index=True))


def test_packed_data_is_taken_if_it_is_encoded_as_the_runs_own(finished, dataset, tmp_path):
    assert evaluate(finished, data=dataset) == evaluate(finished)
    other = prepare(write_table(tmp_path, seed=5), encoding=dataset.meta.encoding)
    assert evaluate(finished, data=other)["metrics"]["click"]["rows"] == 450
    with pytest.raises(DataError, match=r"data is not encoded as that of .*finished was: give prepare the meta\.encoding"):
        evaluate(finished, data=prepare(tmp_path / "tiny.yaml"))


def test_a_run_on_a_packed_folder_has_the_schema_of_its_rows(schema, tmp_path):
    prepare_folder(schema, tmp_path / "packed")
    train(tiny_config(tmp_path / "packed", optimiser__epochs=1), tmp_path / "run")
    assert evaluate(tmp_path / "run", data=schema.parent / "tiny.csv")["metrics"]["click"]["rows"] == 1500
    shutil.rmtree(tmp_path / "packed")
    assert evaluate(tmp_path / "run", data=schema.parent / "tiny.csv")["metrics"]["click"]["rows"] == 1500
    with pytest.raises(DataError, match=r"the data of .*run, '.*packed', is not there: .*--data ROWS\.parquet"):
        evaluate(tmp_path / "run")


def test_a_schema_named_from_one_folder_is_found_from_another(tmp_path, monkeypatch):
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    train(tiny_config("tiny.yaml", optimiser__epochs=1), tmp_path / "run")
    assert load_config(tmp_path / "run" / "config.yaml").data == str(tmp_path / "tiny.yaml")
    train(tiny_config("tiny.yaml", optimiser__epochs=1), tmp_path / "run", resume=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(tmp_path / "run")["metrics"]["click"]["rows"] == 450
