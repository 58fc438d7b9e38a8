"""The logs of the study of selection bias have the selection bias that they are for, and its table compares settings on the same log."""

import csv

import numpy as np
import pytest

from bench.studies.selection_bias import KINDS, PARTS, draw, held_out_rows, tables, write_log


@pytest.mark.parametrize("kind", KINDS)
def test_clicked_rows_consume_more_often_than_all_rows_would(kind):
    drawn = draw(kind, 0, rows=20_000)
    assert drawn.would_consume[drawn.click].mean() > drawn.would_consume.mean() + 0.1
    assert drawn.click.mean() == pytest.approx(drawn.propensity.mean(), abs=0.01)
    assert drawn.would_consume.mean() == pytest.approx(drawn.conversion.mean(), abs=0.015)


def test_no_column_tells_the_hidden_taste():
    drawn = draw("hidden taste", 0, rows=20_000)
    again = draw("one taste", 0, rows=20_000)
    assert (drawn.values == again.values).all()
    assert np.corrcoef(drawn.propensity, again.propensity)[0, 1] < 0.5


def test_the_log_holds_consumes_of_clicked_rows_alone_and_its_last_rows_are_held_out(tmp_path):
    drawn = draw("one taste", 0, rows=1000)
    write_log(drawn, tmp_path)
    with open(tmp_path / "impressions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["consume"]) for row in rows] == (drawn.click & drawn.would_consume).astype(int).tolist()
    held_out = [int(row["click"]) for row in rows if row["split"] == "test"]
    assert held_out == held_out_rows(drawn).click.astype(int).tolist()


def row(setting, seed, value):
    metrics = {"auc": value, "log_loss": 1 - value, "calibration": 1.0}
    scores = dict.fromkeys(["all", *PARTS], metrics) | {"truth": metrics | {"auc": 0.9}}
    return {"data": "log", "setting": setting, "seed": seed, "scores": scores}


def test_differences_are_paired_by_log():
    rows = [row("entire_space", 0, 0.5), row("entire_space", 1, 0.7), row("dr", 1, 0.72), row("dr", 0, 0.52)]
    lines = {line[0]: line[1:] for line in tables({"rows": rows})[0][1]}
    assert lines["log: entire_space"][0] == "0.6000"
    assert lines["log: dr"][0] == "0.6200 (+0.0200 ± 0.0000)"
    assert lines["log: the true probabilities"][0] == "0.9000"
