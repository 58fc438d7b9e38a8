"""The data report: its numbers by hand, and each of its warnings on a table that deserves it and on one that does not."""

import json
from math import log
from pathlib import Path

import numpy as np
import pytest

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit, data_report

ROWS = 400


def packed(splits, *, fields=None, dense=(), tasks=("click",), funnel=False, group=None):
    """A data set in memory. `fields` maps a field to its vocabulary; `splits` maps a split to its arrays."""
    vocabulary = {"city": ["<oov>", "a", "b", "c"]} if fields is None else fields
    sizes = {name: len(entries) if entries[:1] == ["<oov>"] else len(entries) + 2 for name, entries in vocabulary.items()}
    rows = {name: len(arrays["labels"]) for name, arrays in splits.items()}
    meta = PackedMeta("shop", tasks, funnel, "independent", sizes, dense, group, False, rows, vocabulary, {}, {}, 1)

    def split(name, arrays):
        kinds = {"ids": (np.int32, sizes), "dense": (np.float32, dense), "labels": (np.float32, tasks)}
        made = {kind: np.asarray(arrays[kind], dtype).reshape(rows[name], len(of)) for kind, (dtype, of) in kinds.items() if of}
        return PackedSplit(name, **{"dense": None} | made, weight=None, group=np.asarray(arrays["group"], np.int64) if group else None)

    return PackedDataset(Path("shop"), meta, {name: split(name, arrays) for name, arrays in splits.items()})


def sound(seed=0, **of_test):
    """A data set about which there is nothing to warn; `of_test` replaces arrays of the test split."""
    rng = np.random.default_rng(seed)
    splits = {
        name: {"ids": rng.integers(0, 4, ROWS), "labels": rng.random(ROWS) < 0.3, "dense": rng.normal(size=ROWS)}
        for name in ("train", "valid", "test")
    }
    splits["test"] |= of_test
    return splits


def warnings(splits, **options):
    return data_report(packed(splits, dense=("price",), **options))["warnings"]


def the_warning(splits, **options):
    lines = warnings(splits, **options)
    assert len(lines) == 1, lines
    assert "\n" not in lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def tiny():
    """Eight train rows and four test rows of a funnel, whose report is checked by hand."""
    unknown = np.nan
    return data_report(
        packed(
            {
                "train": {
                    "ids": [[0, 0], [1, 1], [2, 1], [3, 2], [1, 2], [0, 1], [3, 0], [1, 1]],
                    "dense": [-1, 1, -1, 1, -1, 1, -1, 1],
                    "labels": [[1, 1], [1, 0], [0, 0], [0, 0], [1, 0], [0, unknown], [1, unknown], [0, 0]],
                    "group": [0, 0, 0, 1, 1, -1, 2, 2],
                },
                "test": {
                    "ids": [[0, 0], [0, 1], [3, 1], [0, 1]],
                    "dense": [0, 0, 2, 4],
                    "labels": [[1, 0], [0, 0], [0, 0], [0, 0]],
                    "group": [0, 1, 1, 1],
                },
                "valid": {"ids": [], "dense": [], "labels": [], "group": []},
            },
            fields={"city": ["<oov>", "a", "b", "<missing>"], "price": [5.0]},
            dense=("price",),
            tasks=("click", "buy"),
            funnel=True,
            group="user",
        )
    )


def test_labels_are_counted_by_task_and_split(tiny):
    assert tiny["rows"] == {"train": 8, "test": 4, "valid": 0}
    click, buy, given = (tiny["tasks"][name] for name in ("click", "buy", "buy_given_click"))
    assert click["train"] == {"rows": 8, "positives": 4, "base_rate": 0.5, "constant_log_loss": pytest.approx(log(2))}
    assert click["test"] == {"rows": 4, "positives": 1, "base_rate": 0.25, "constant_log_loss": pytest.approx(log(2))}
    assert (buy["train"]["rows"], buy["train"]["positives"]) == (6, 1)
    assert buy["test"]["constant_log_loss"] == pytest.approx(-log(5 / 6))
    assert (given["train"]["rows"], given["train"]["positives"]) == (3, 1)
    assert click["valid"] == {"rows": 0, "positives": 0, "base_rate": None, "constant_log_loss": None}


def test_fields_have_their_size_and_the_shares_that_can_be_told_apart(tiny):
    missing, unknown = {"train": 0.25, "test": 0.25, "valid": None}, dict.fromkeys(["train", "valid", "test"])
    oov = {"train": 0.25, "test": 0.75, "valid": None}
    assert tiny["fields"] == {
        "city": {"kind": "categorical", "ids": 4, "oov": oov, "missing": missing, "oov_dropout": 10.0},
        "price": {"kind": "buckets", "ids": 3, "oov": unknown, "missing": missing},
    }
    assert data_report(packed(sound()))["fields"]["city"]["missing"] == unknown, "train gave missing cells no category"


def test_dense_columns_have_mean_deviation_and_extremes(tiny):
    assert tiny["dense"]["price"] == {
        "train": {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0},
        "test": {"mean": 1.5, "std": pytest.approx(2.75**0.5), "min": 0.0, "max": 4.0},
        "valid": dict.fromkeys(["mean", "std", "min", "max"]),
    }


def test_groups_are_counted_and_so_are_those_that_hold_both_classes(tiny):
    train, test = tiny["groups"]["train"], tiny["groups"]["test"]
    assert (train["groups"], train["mean_rows"], train["rows_without_group"]) == (3, 7 / 3, 1)
    assert train["both_classes"] == pytest.approx({"click": 1.0, "buy": 1 / 3, "buy_given_click": 1 / 3})
    assert (test["groups"], test["mean_rows"], test["both_classes"]["click"]) == (2, 2.0, 0.0)
    none = dict.fromkeys(["click", "buy", "buy_given_click"])
    assert tiny["groups"]["valid"] == {"groups": 0, "mean_rows": None, "rows_without_group": 0, "both_classes": none}


def test_a_report_is_strict_json_and_too_few_labels_give_no_single_feature(tiny):
    assert json.loads(json.dumps(tiny, allow_nan=False)) == tiny
    assert tiny["single_feature_auc"] == {"click": None, "buy": None}


def test_blocks_of_rows_add_up_to_the_whole(monkeypatch):
    whole = data_report(packed(sound(), dense=("price",)))
    monkeypatch.setattr("dcrnn_fast.data.inspect.oov.BLOCK_ROWS", 7)
    monkeypatch.setattr("dcrnn_fast.data.inspect.report.BLOCK_ROWS", 7)
    parts = data_report(packed(sound(), dense=("price",)))
    assert parts["fields"] == whole["fields"]
    assert parts["dense"]["price"]["test"] == pytest.approx(whole["dense"]["price"]["test"])


def test_a_sound_table_gives_no_warning(census, hillstrom):
    for seed in range(5):
        assert warnings(sound(seed)) == []
    assert data_report(census)["warnings"] == data_report(hillstrom)["warnings"] == []


def test_a_field_whose_texts_changed_between_the_files_is_named(table):
    rng = np.random.default_rng(0)
    columns = {split: [(rng.integers(200, 260), rng.normal(), rng.integers(0, 2)) for _ in range(300)] for split in ("train", "test")}
    for split, start in (("train", ""), ("test", "0")):
        lines = [(f"{start}{city}" if row % 3 else "", price, click) for row, (city, price, click) in enumerate(columns[split])]
        table.write(f"{split}.csv", "city,price,click", lines)
    report = data_report(table.prepare())
    assert report["fields"]["city"]["oov"]["test"] == pytest.approx(2 / 3)
    (line,) = report["warnings"]
    assert line.startswith(
        "field 'city': 100.0% of the test cells that are not missing are out of vocabulary, but 0.0% of the train cells: "
    )
    assert "7 and 007" in line


def some(share):
    """Ids of which this share is 0."""
    return np.where(np.arange(ROWS) < share * ROWS, 0, 1 + np.arange(ROWS) % 3)


@pytest.mark.parametrize(
    ("train", "test", "warned"),
    [(0.0, 0.95, True), (0.74, 0.95, True), (0.8, 1.0, True), (0.0, 0.94, False), (0.8, 0.95, False), (0.96, 1.0, False)],
)
def test_a_field_is_lost_if_19_in_20_cells_are_out_of_vocabulary(train, test, warned):
    """And if at most a fifth as many are known as in the train rows."""
    splits = sound(ids=some(test))
    splits["train"]["ids"] = some(train)
    assert any("of the test cells are out of vocabulary or missing" in line for line in warnings(splits)) == warned


@pytest.mark.parametrize(("fields", "missing"), [({"a\nge": [1.0, 2.0]}, 0), ({"city": ["<oov>", "a", "b", "<missing>"]}, 3)])
def test_a_field_that_only_the_test_rows_miss_is_named(fields, missing):
    line = the_warning(sound(ids=np.full(ROWS, missing)), fields=fields)
    assert f"field {next(iter(fields))!r}: 100.0% of the test cells are missing, but 2" in line  # a name keeps it in one line


def test_a_dense_column_that_only_the_test_rows_miss_is_named_once():
    assert the_warning(sound(dense=np.zeros(ROWS))).startswith("dense column 'price': all test rows are 0, as a missing value is, ")
    of_field = the_warning(sound(dense=np.zeros(ROWS), ids=np.zeros(ROWS)), fields={"price": [1.0, 2.0]})
    assert of_field.startswith("field 'price': 100.0% of the test cells are missing")


def test_a_field_that_min_count_leaves_out_of_vocabulary_in_train_is_named():
    splits = sound()
    for arrays in splits.values():
        arrays["ids"] = some(0.6)
    assert the_warning(splits).startswith("field 'city': 60.0% of the train rows are out of vocabulary, their categories being rarer")
    for arrays in splits.values():
        arrays["ids"] = some(0.4)
    assert warnings(splits) == []


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(
    ("positives", "said"),
    [
        (0, "all 400 known labels of the {split} rows are 0"),
        (400, "all 400 known labels of the {split} rows are 1"),
        (9, "the {split} rows hold 9 positive and 391 negative labels"),
        (391, "the {split} rows hold 391 positive and 9 negative labels"),
        (10, None),
        (None, "no label of the {split} rows is known"),
    ],
)
def test_labels_that_are_constant_rare_or_unknown_are_named(split, positives, said):
    splits = sound()
    splits[split]["labels"] = np.full(ROWS, np.nan) if positives is None else np.arange(ROWS) < positives
    lines = warnings(splits)
    assert any(line.startswith(f"task 'click': {str(said).format(split=split)}: ") for line in lines) == (said is not None)
    assert any(" positive and " in line for line in lines) == (positives in (9, 391))


@pytest.mark.parametrize(("rows", "share", "is_named"), [(ROWS, 0.6, True), (ROWS, 0.4, False), (20, 0.5, False)])
def test_a_base_rate_that_differs_much_and_not_by_chance_is_named(rows, share, is_named):
    lines = warnings(sound(ids=np.arange(rows) % 4, labels=np.arange(rows) % 10 < 10 * share, dense=np.arange(rows) % 7))
    assert [line.partition(" is 0.")[0] for line in lines] == ["task 'click': its base rate"] * is_named
    assert all("0.6 on the test rows: probabilities learned on train will be too low there" in line for line in lines)


def in_groups(of_test):
    """A sound data set whose test rows are in these groups, and the others in ten."""
    splits = sound()
    for name, arrays in splits.items():
        arrays["group"] = of_test if name == "test" else np.arange(ROWS) % 10
    return splits


def test_groups_of_one_row_give_no_gauc():
    splits = in_groups(np.arange(ROWS))
    assert the_warning(splits, group="user").startswith("task 'click': 0 of the 400 groups 'user' of the test rows hold both classes")
    splits["test"]["labels"] = np.zeros(ROWS)
    assert "all 400 known labels of the test rows are 0" in the_warning(splits, group="user")


@pytest.mark.parametrize(("groups", "warned"), [(9, True), (10, False)])
def test_fewer_than_ten_groups_with_both_classes_say_little(groups, warned):
    lines = warnings(in_groups(np.arange(ROWS) % groups), group="user")
    assert [f"{groups} of the {groups} groups" in line and "it says little there" in line for line in lines] == [True] * warned


def two_tasks(second):
    """A sound data set with a second label that is made of the first."""
    splits = sound()
    for arrays in splits.values():
        first = np.asarray(arrays["labels"], float)
        arrays["labels"] = np.column_stack([first, second(first)])
    return splits


def test_a_task_known_only_where_another_happened_and_one_class_are_named():
    known = two_tasks(lambda first: np.where(first == 1, np.arange(ROWS) // 2 % 2, np.nan))
    line = the_warning(known, tasks=("click", "buy"))
    assert line.startswith("task 'buy': its labels are known only where 'click' is 1: its metrics are of these rows alone")
    lines = warnings(two_tasks(lambda first: first), tasks=("click", "buy"), funnel=True)
    assert [line[:28] for line in lines] == ["task 'buy_given_click': all "] * 3


def test_a_few_rows_say_nothing_of_a_lost_field():
    few = {"ids": np.zeros(19, int), "labels": np.arange(19) % 2, "dense": np.arange(19)}
    assert not any("out of vocabulary" in line for line in warnings(sound(**few)))
