"""Columns that hold a label, or that an event fills in, and those that are only strong."""

from dataclasses import replace

import numpy as np
import pytest

from dcrnn_fast.data import data_report
from dcrnn_fast.data.inspect import report as single_features

from .test_data_report import ROWS, packed, sound, the_warning, warnings


def leaking(kind, flips=0):
    """A data set whose ids, or dense values, hold the label, but for some rows of each class."""
    splits = sound()
    for seed, arrays in enumerate(splits.values()):
        held = arrays["labels"].copy()
        for value in (True, False):
            held[np.flatnonzero(arrays["labels"] == value)[:flips]] = not value
        noise = np.random.default_rng(seed).random(ROWS)
        arrays[kind] = np.where(held, 1, 2 + (noise < 0.5)) if kind == "ids" else noise - 2 * held
    return splits


@pytest.mark.parametrize(("kind", "column"), [("ids", "city"), ("dense", "price")])
def test_a_column_that_holds_the_label_is_named_and_a_strong_one_not(kind, column):
    assert the_warning(leaking(kind)).startswith(f"task 'click': column {column!r} alone predicts it on the valid rows with AUC 1.0000: ")
    assert warnings(leaking(kind, flips=5)) == []
    of_test = leaking(kind) | {"valid": {"ids": [], "labels": [], "dense": []}}
    assert "on the test rows with AUC 1.0000" in the_warning(of_test), "no validation rows"


@pytest.mark.parametrize("kind", ["ids", "dense"])
@pytest.mark.parametrize(("positives", "flips", "warned"), [(12, 0, 1), (12, 1, 0), (9, 0, 0)])
def test_of_few_labels_only_a_perfect_column_is_named(kind, positives, flips, warned):
    splits = leaking(kind, flips)
    for name, arrays in splits.items():
        rows = np.concatenate([np.flatnonzero(arrays["labels"])[:positives], np.flatnonzero(~arrays["labels"])[:100]])
        splits[name] = {key: values[rows] for key, values in arrays.items()}
    assert sum("alone predicts it on the valid rows with AUC 1.0000" in line for line in warnings(splits)) == warned


@pytest.mark.parametrize(("kind", "column"), [("ids", "city"), ("dense", "price")])
@pytest.mark.parametrize("label", [1, 0])
def test_a_column_that_some_rare_events_alone_fill_in_is_named(kind, column, label):
    splits = sound()
    for arrays in splits.values():
        arrays["labels"] = (np.arange(ROWS) % 5 == 0) == label
        filled = np.arange(ROWS) % 10 == 0  # of half of the rows with the rare label
        arrays[kind] = np.where(filled, 2 + np.arange(ROWS) % 2, 1)
    line = the_warning(splits)
    assert line.startswith(
        f"task 'click': at least 99% of the 40 valid rows without the most frequent value of column {column!r} have the "
    )
    assert f"label {label}, of all rows at most 20%: " in line
    splits["valid"]["labels"][0] = 1 - label  # one of the 40
    assert warnings(splits) == []


def test_an_event_that_adds_a_tag_behind_others_is_seen():
    splits, names, texts = sound(), ["tags[0]", "tags[1]"], ["<oov>", "x", "y", "z"]
    for arrays in splits.values():
        arrays["labels"] = np.arange(ROWS) % 5 == 0
        arrays["ids"] = np.stack([1 + np.arange(ROWS) % 3, np.where(np.arange(ROWS) % 10 == 0, 2, 0)], axis=1)
    data = packed(splits, fields=dict.fromkeys(names, texts), dense=("price",))
    pooled = {"tags": {"columns": names, "pooling": "mean"}}
    lines = data_report(replace(data, meta=replace(data.meta, pooled=pooled)))["warnings"]
    assert any("the 40 valid rows without the most frequent value of column 'tags' have the label 1" in line for line in lines), lines


def test_a_common_label_of_all_unusual_rows_is_not_named():
    splits = sound()
    for arrays in splits.values():
        arrays["labels"] = np.arange(ROWS) % 4 == 0
        arrays["dense"] = np.where(np.arange(ROWS) % 8 == 0, 1 + np.arange(ROWS) % 3, 0)
    assert warnings(splits) == []


def test_a_single_feature_has_the_auc_of_its_target_means_on_held_out_rows():
    from sklearn.metrics import roc_auc_score

    splits = sound()
    found = data_report(packed(splits, dense=("price",)))["single_feature_auc"]["click"]
    train, valid = splits["train"], splits["valid"]
    rate = train["labels"].mean()
    means = np.array([(train["labels"][train["ids"] == i].sum() + 10 * rate) / ((train["ids"] == i).sum() + 10) for i in range(4)])
    assert found["fields"]["city"] == pytest.approx(roc_auc_score(valid["labels"], means[valid["ids"]]))
    dense = roc_auc_score(valid["labels"], valid["dense"])
    assert found["dense"]["price"] == pytest.approx(max(dense, 1 - dense))
    assert (found["split"], found["train_rows"], found["rows"]) == ("valid", ROWS, ROWS)


def test_the_check_for_leaks_reads_a_sample_that_every_call_draws_alike(monkeypatch):
    monkeypatch.setattr(single_features, "SAMPLE_ROWS", 300)
    data = packed(leaking("ids"), dense=("price",))
    found = data_report(data)["single_feature_auc"]["click"]
    assert (found["train_rows"], found["rows"], found["fields"]["city"]) == (300, 300, 1.0)
    assert data_report(data)["single_feature_auc"]["click"] == found
