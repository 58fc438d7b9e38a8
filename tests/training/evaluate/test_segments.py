"""`evaluate --by`: the metrics of the rows with each value of a field."""

import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import PackedMeta, prepare
from dcrnn_fast.data.codes.numbers import edges_of, steady_edges
from dcrnn_fast.data.codes.sums import NumberCounts
from dcrnn_fast.data.packed.arrays import PackedSplit
from dcrnn_fast.training import calibrate, evaluate
from dcrnn_fast.training.evaluate.metrics import binary_metrics
from dcrnn_fast.training.evaluate.segments import metrics_by, names_of_ids, segments
from tests.training.tiny import write_table


@pytest.fixture(scope="module")
def by(finished):
    return evaluate(finished, by=["colour", "size"], bootstrap=100)["by"]


def test_each_value_has_the_metrics_of_its_rows(finished, dataset, by, tmp_path):
    evaluate(finished, predictions=tmp_path / "rows.parquet")
    rows = pq.read_table(tmp_path / "rows.parquet").to_pandas()
    labels, p = rows["buy_label"].to_numpy(dtype=np.float32, na_value=np.nan), rows["buy"].to_numpy()
    colours = np.asarray(dataset.split("test").ids[:, list(dataset.meta.fields).index("colour")])
    names = dataset.meta.vocabulary["colour"]
    assert [entry["value"] for entry in by["colour"]] == [names[colour] for colour in np.unique(colours)]
    for entry in by["colour"]:
        own = colours == names.index(entry["value"])
        expected, found = binary_metrics(labels[own], p[own]), entry["metrics"]["buy"]
        assert {name: found[name] for name in expected} == expected
        assert found["label_mean"] == pytest.approx(np.nanmean(labels[own]))
        assert found["prediction_mean"] == pytest.approx(p[own][~np.isnan(labels[own])].mean())
        assert found["calibration"] == pytest.approx(found["prediction_mean"] / found["label_mean"])


def test_the_segments_of_a_field_have_all_rows_of_each_task(finished, copied, dataset, by):
    whole = evaluate(finished)
    assert "by" not in whole
    for entries in by.values():
        for task, found in whole["metrics"].items():
            for name in ("rows", "positives"):
                assert sum(entry["metrics"][task][name] for entry in entries) == found[name]
    for name, (low, high) in by["colour"][0]["metrics"]["click"]["intervals"].items():
        assert low < by["colour"][0]["metrics"]["click"][name] < high, name
    edges = [round(edge, 4) for edge in dataset.meta.vocabulary["size"]]  # as the table's numbers are rounded
    names = [entry["value"] for entry in by["size"]]
    assert names == [f"< {edges[0]}", *(f"{low} to < {high}" for low, high in pairwise(edges)), f">= {edges[-1]}"]
    calibrate(copied)
    plain, served = (evaluate(copied, by=["colour"], as_served=given)["by"]["colour"][0]["metrics"]["click"] for given in (False, True))
    assert (plain["positives"], "intervals" in plain) == (served["positives"], False)
    assert plain["prediction_mean"] != served["prediction_mean"]


@pytest.mark.parametrize("unit", [1, 1.1, -0.1])
def test_a_number_with_a_bucket_of_its_own_is_named_alone(unit, tmp_path):
    values = unit * np.repeat([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [90, 5, 5, 100, 5, 5, 5])
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{value:g},{row % 2}\n" for row, value in enumerate(values)))
    schema = write_table(
        tmp_path,
        files={"train": "t.csv", "test": "t.csv"},
        funnel=False,
        tasks=[{"name": "y", "column": "y"}],
        categorical=[],
        numeric=[{"column": "x", "buckets": 4}],
        group=None,
        weight=None,
    )
    data = prepare(str(schema))
    names = [names_of_ids(data.meta, "x")(number) for number in range(data.meta.fields["x"])]
    expected = {
        1: ["<= 0", "> 0 to < 3", "3", "> 3 to < 5", ">= 5"],
        1.1: ["<= 0", "> 0 to < 3.3", "3.3", "> 3.3 to < 5.5", ">= 5.5"],
        -0.1: ["< -0.4", "-0.4 to < -0.3", "-0.3", "> -0.3 to < 0", ">= 0"],
    }
    assert names == ["<missing>", *expected[unit]]


def test_numbers_next_to_an_integer_are_named_as_they_are():
    u = 2.0**-24  # the last bit of a float32 below 1
    numbers = NumberCounts.of([np.array([0.5, 1 - 3 * u, 1 - 2 * u, 1 - u, 1.0])])
    edges = steady_edges(edges_of(numbers, 8), numbers).tolist()
    vocabulary = {"p": edges}
    meta = PackedMeta("t", ("y",), False, "independent", {"p": len(edges) + 2}, (), None, False, {"train": 5}, vocabulary, {}, {}, 1)
    named = [names_of_ids(meta, "p")(number) for number in range(1, 6)]
    assert [name.count(" 1") + name.startswith("1 ") for name in named] == [0, 0, 0, 1, 1], named


def test_the_values_of_the_fewest_rows_are_one_segment(dataset):
    ids = np.array([1] * 3 + [2] * 5 + [4] + [5] * 2 + [6], dtype=np.int32)
    found = list(segments(ids, ["<oov>", *"abcdef"].__getitem__, most=3))
    assert [about for about, _ in found] == [{"value": "a"}, {"value": "b"}, {"value": "e"}, {"value": None, "values": 2}]
    assert sorted(np.concatenate([rows for _, rows in found])) == list(range(len(ids)))
    assert ids[found[-1][1]].tolist() == [4, 6]
    split = PackedSplit("test", np.ones((4, len(dataset.meta.fields)), np.int32), None, np.zeros((4, 2), np.float32), None, None)
    (entry,) = metrics_by(("shape",), split, dataset.meta, {"buy": np.full(4, np.nan)}, {"buy": np.full(4, 0.5)})["shape"]
    assert entry["metrics"]["buy"].pop("rows") == entry["metrics"]["buy"].pop("positives") == 0
    assert set(entry["metrics"]["buy"].values()) == {None}, "without a known label there are no metrics"


def test_the_command_prints_a_table_a_field_and_gives_the_same_in_json(finished, command):
    code, out, _ = command("evaluate", "--run", finished, "--by", "colour", "--by", "size", "--by", "colour")
    assert code == 0
    assert out.count("By colour") == out.count("By size") == 1
    text = command("evaluate", "--run", finished, "--by", "colour", "--json")[1]
    lines = out[out.index("By colour") : out.index("By size")].splitlines()
    for entry in json.loads(text)["by"]["colour"]:
        (line,) = [line for line in lines if f" {entry['value']} " in line]
        for name in ("label_mean", "prediction_mean", "calibration", "log_loss", "auc"):
            assert f"{entry['metrics']['click'][name]:.4f}" in line
