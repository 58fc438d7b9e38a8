"""The studies: their settings are keys of the configuration, and differences are those on the same seed."""

import pytest

from bench.results import read
from bench.studies import __main__ as studies
from bench.studies.__main__ import STUDIES, data_set
from bench.studies.tables import beside, by_set, by_task, over_constant, section
from dcrnn_fast.training import load_config


@pytest.mark.parametrize("name", STUDIES)
def test_settings_are_keys_of_the_configuration(name):
    for setting in STUDIES[name]["settings"].values():
        if not {"model", "runs"} & setting.keys():
            load_config(None, {"data": "toy", **setting})


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_rows_give_the_table(name):
    assert section(name, STUDIES[name], read(f"{name}.json")).startswith("| ")


def test_census_income_without_buckets_has_dense_numbers_alone(tmp_path):
    dense, whole = (data_set(STUDIES["ablation"]["sets"][name], 0, None, tmp_path) for name in ("census-income, dense", "census-income"))
    assert len(dense.split("train")) == len(whole.split("train"))
    assert len(whole.meta.fields) - len(dense.meta.fields) == len(dense.meta.dense) > 0


def test_runs_that_go_on_see_later_rows_and_never_the_test_rows(monkeypatch, tmp_path):
    seen = []

    def trained(config, folder, *, dataset, init):
        seen.append((dataset.meta.rows, init and init.name))
        return {"train": {"seconds": 1.0}, "test": {}}

    monkeypatch.setattr(studies, "train", trained)
    log = studies.log_of({"log": "shop", "rows": 2000, "users": 50, "items": 20}, 0, None)
    _, seconds = studies.by_runs([[0, 120], [120, 130], [130, 140]], log, 0, tmp_path)
    assert [rows for rows, _ in seen] == [
        {"train": 1080, "valid": 120, "test": 400}, {"train": 90, "valid": 10, "test": 400}, {"train": 90, "valid": 10, "test": 400}
    ]  # fmt: skip
    assert [init for _, init in seen] == [None, "0", "1"]
    assert seconds == 2.0


def test_a_difference_has_the_seeds_that_both_have():
    assert beside({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7}) == "0.6000"
    assert beside({0: 0.52, 1: 0.72, 2: 0.9}, {1: 0.66, 0: 0.5}) == "0.6200 (+0.0400 ± 0.0200)"
    assert beside({0: 0.5}, {0: 0.4}) == "0.5000 (+0.1000)"
    assert beside({0: 0.5}, {1: 0.4}) == "not measured"


def row(data, setting, seed, auc, loss=0.5):
    metrics = {"click": {"auc": auc, "log_loss": loss, "constant_log_loss": 0.5}}
    return {"data": data, "setting": setting, "seed": seed, "test": metrics, "valid": metrics, "seconds": 3.0}


ROWS = [row("a", "ours", 0, 0.5, 0.4), row("a", "ours", 1, 0.6, 0.4), row("a", "theirs", 1, 0.7), row("a", "theirs", 0, 0.6)]


def test_tables_compare_with_the_first_setting():
    assert by_set(ROWS, "ours")[1] == [["ours", "0.5500"], ["theirs", "0.6500 (+0.1000 ± 0.0000)"]]
    assert by_task(ROWS, "ours")[1] == [["a: click", "0.5500", "0.6500 (+0.1000 ± 0.0000)"], ["a: seconds", "3", "3"]]
    assert over_constant(ROWS, "ours")[1] == [
        ["ours", "0.8000 (0.5500)", "0.8000", "", "0 of 2"],
        ["theirs", "1.0000 (0.6500)", "1.0000", "+0.2000 ± 0.0000", "2 of 2"],
    ]
