"""What `evaluate` gives beside metrics: intervals by resampling rows, a dump of the predictions, and reliability plots."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dcrnn_fast.data import PackedMeta, PackedSplit
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate
from dcrnn_fast.training.evaluate.evaluate import importance_of
from dcrnn_fast.training.evaluate.metrics import binary_metrics, bootstrap_intervals
from dcrnn_fast.training.evaluate.plots import reliability
from tests.damage import fill_disk


def draw(rows, seed=0):
    """Labels, and the probabilities that they were drawn with, with ties."""
    rng = np.random.default_rng(seed)
    p = rng.integers(1, 20, rows) / 20
    return (rng.random(rows) < p).astype(np.float32), p.astype(np.float32)


def test_intervals_are_the_quantiles_of_the_metrics_of_resampled_rows():
    """And paired ones are of the differences in the same resamples."""
    labels, p = draw(300)
    labels[::10] = np.nan
    known = ~np.isnan(labels)
    other = np.clip(p + np.random.default_rng(1).normal(0, 0.02, len(p)), 0.01, 0.99)
    alone, paired = bootstrap_intervals(labels, p, 100), bootstrap_intervals(labels[known], other[known], 100, other=p[known])
    labels, p, other, rng = labels[known], p[known], other[known], np.random.default_rng(0)
    resamples = [rng.integers(len(p), size=len(p)) for _ in range(100)]
    of_p, of_other = ([binary_metrics(labels[rows], values[rows]) for rows in resamples] for values in (p, other))
    for name, interval in alone.items():
        assert interval == pytest.approx(np.quantile([entry[name] for entry in of_p], (0.025, 0.975))), name
    for name, interval in paired.items():
        differences = [one[name] - before[name] for one, before in zip(of_other, of_p, strict=True)]
        assert interval == pytest.approx(np.quantile(differences, (0.025, 0.975)), abs=1e-9), name


@pytest.mark.parametrize(
    ("label", "undefined"), [(0.0, ["auc", "calibration"]), (1.0, ["auc"]), (np.nan, ["auc", "calibration", "log_loss"])]
)
def test_what_is_undefined_has_no_interval(label, undefined):
    found = bootstrap_intervals(np.full(50, label, dtype=np.float32), draw(50)[1], 100)
    assert sorted(name for name, interval in found.items() if interval is None) == undefined


def test_evaluate_gives_an_interval_around_each_metric_the_same_each_time(finished, command):
    result = evaluate(finished, bootstrap=100)
    for task, entry in result["metrics"].items():
        for name, (low, high) in entry["intervals"].items():
            assert low < entry[name] < high or low == entry[name] == high == 1, (task, name)
    plain = evaluate(finished)["metrics"]
    assert {task: {name: value for name, value in own.items() if name != "intervals"} for task, own in result["metrics"].items()} == plain
    options = ("evaluate", "--run", finished, "--bootstrap", 100, "--importance")
    given = json.loads(command(*options, "--json")[1])
    assert given["metrics"] == result["metrics"]
    assert sorted(given["importance"]) == ["colour", "shape", "size"]
    code, out, _ = command(*options)
    assert code == 0
    low, high = result["metrics"]["click"]["intervals"]["auc"]
    assert f"{low:.4f}-{high:.4f}" in out
    assert [line for line in out.splitlines() if "colour" in line and f"{given['importance']['colour']['click']:.4f}" in line]


def test_a_dump_of_predictions_has_the_rows_of_the_metrics(finished, tmp_path, dataset):
    metrics = evaluate(finished, split="valid", predictions=tmp_path / "valid.parquet")["metrics"]
    table = pq.read_table(tmp_path / "valid.parquet").to_pandas()
    assert list(table.columns) == ["click", "buy", "buy_given_click", "click_label", "buy_label"]
    np.testing.assert_array_equal(table["buy_label"].to_numpy(dtype=np.float32, na_value=np.nan), dataset.split("valid").labels[:, 1])
    again = binary_metrics(table["click_label"].to_numpy(dtype=np.float32), table["click"].to_numpy())
    assert again["log_loss"] == metrics["click"]["log_loss"]
    assert table["buy_label"].isna().sum() == len(table) - metrics["buy"]["rows"] > 0


@pytest.mark.parametrize(("option", "name"), [("predictions", "rows.parquet"), ("plot", "rows.svg")])
def test_a_full_disk_is_an_error_that_names_the_output(finished, tmp_path, monkeypatch, option, name):
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match=rf"{option} .*{name} cannot be written: No space left on device; name another path"):
        evaluate(finished, **{option: tmp_path / name})
    assert not list(tmp_path.iterdir())


def test_reliability_has_bins_of_equal_counts_with_the_means_of_their_rows():
    labels, p = draw(1003)
    labels[::10] = np.nan
    predicted, observed, rows = reliability(labels, p)
    known = ~np.isnan(labels)
    assert rows.sum() == known.sum()
    assert rows.max() - rows.min() <= 1
    assert (np.diff(predicted) > 0).all()
    assert (predicted * rows).sum() == pytest.approx(p[known].sum(dtype=np.float64))
    assert (observed * rows).sum() == pytest.approx(labels[known].sum())
    for few in (0, 3):
        assert [len(values) for values in reliability(*draw(few))] == [few] * 3


def test_evaluate_draws_the_reliability_with_the_same_bytes_each_time(finished, tmp_path):
    for name in ("a.svg", "b.svg"):
        evaluate(finished, plot=tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").read_text().count('id="axes_') == 2 * 3  # each with the counts below
    with pytest.raises(DataError, match=r"plot .*: expected the path of a \.svg file in a folder that exists"):
        evaluate(finished, plot=tmp_path / "a.png")


def test_the_input_that_a_model_reads_is_the_one_that_matters(monkeypatch):
    rng = np.random.default_rng(0)
    ids, dense = rng.integers(0, 2, (1000, 2)).astype(np.int32), rng.normal(size=(1000, 1)).astype(np.float32)
    fields = {"read": 2, "not_read": 2}
    meta = PackedMeta("shop", ("click",), False, "independent", fields, ("read",), None, False, {"test": 1000}, {}, {}, {}, 1)
    rows = PackedSplit("test", ids=ids, dense=dense, labels=ids[:, :1].astype(np.float32), weight=None, group=None)
    # by the number beside the field, too: a column is shuffled as both
    predicted = lambda model, of, *_: {"click": 0.25 + of.ids[:, 0] / 2 + 0 * of.dense[:, 0]}  # noqa: E731
    monkeypatch.setitem(importance_of.__globals__, "finite_predictions", predicted)
    falls, intervals = importance_of(None, rows, meta, torch.device("cpu"))
    assert falls["read"]["click"] == pytest.approx(0.5, abs=0.05)
    assert intervals["read"]["click"][0] < falls["read"]["click"] < intervals["read"]["click"][1]
    assert (falls["not_read"], intervals["not_read"]) == ({"click": 0.0}, {"click": [0.0, 0.0]})
