"""Real rows in three public layouts, read through a schema a user would write."""

from __future__ import annotations

import csv

import numpy as np
import yaml

from dcrnn_fast.data import BlockLoader, prepare


def columns_of(path):
    with path.open() as file:
        return next(csv.reader(file))


def prepared(tmp_path, schema, **options):
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(schema))
    return prepare(path, cache_dir=tmp_path / "cache", **options)


def raw(path, *columns):
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[column]) for column in columns] for row in rows], dtype=np.float32)


def test_aliexpress_click_and_conversion(samples, tmp_path):
    train, test = samples / "aliexpress_train_sample.csv", samples / "aliexpress_test_sample.csv"
    names = columns_of(train)
    numeric = [name for name in names if name.startswith("numerical_")]
    schema = {
        "name": "aliexpress",
        "files": {"train": str(train), "test": str(test)},
        "categorical": [name for name in names if name.startswith("categorical_")],
        "numeric": [{"column": name, "dense": "log1p"} for name in numeric],
        "tasks": [{"name": "click", "column": "click"}, {"name": "conversion", "column": "conversion"}],
        "group": "search_id",
        "funnel": True,
        "min_count": 2,
    }
    data = prepared(tmp_path, schema, valid_fraction=0.2)
    assert data.meta.rows == {"train": 80, "valid": 20, "test": 20}
    assert (len(data.meta.fields), data.meta.dense, data.meta.relation) == (16, tuple(numeric), "chain")
    np.testing.assert_array_equal(data.split("test").labels, raw(test, "click", "conversion"))
    assert np.isfinite(data.split("train").dense).all()
    searches = raw(test, "search_id")[:, 0]
    group = np.asarray(data.split("test").group)
    np.testing.assert_array_equal(group[:, None] == group, searches[:, None] == searches)


def test_ali_ccp_with_its_own_validation_file_and_numeric_column_names(samples, tmp_path):
    files = {split: samples / f"ali_ccp_{part}_sample.csv" for split, part in (("train", "train"), ("valid", "val"), ("test", "test"))}
    names = columns_of(files["train"])[2:]
    schema = {
        "name": "ali-ccp",
        "files": {split: str(path) for split, path in files.items()},
        "categorical": [name for name in names if not name.startswith("D")],
        "numeric": [{"column": name, "buckets": 8, "dense": "standardise"} for name in names if name.startswith("D")],
        "tasks": [{"name": "click", "column": "click"}, {"name": "purchase", "column": "purchase"}],
        "funnel": True,
        "min_count": 2,
    }
    data = prepared(tmp_path, schema)
    assert data.meta.rows == {"train": 100, "valid": 50, "test": 50}
    assert "109_14" in data.meta.fields
    assert (len(data.meta.fields), len(data.meta.dense)) == (31, 8)
    for split, path in files.items():
        np.testing.assert_array_equal(data.split(split).labels, raw(path, "click", "purchase"))


def test_kuairand_one_file_with_a_threshold_label_and_a_user_group(samples, tmp_path):
    path = samples / "kuairand_sample.csv"
    schema = {
        "name": "kuairand",
        "files": {"all": str(path), "test_fraction": 0.25, "test_seed": 3},
        "categorical": ["user_id", "video_id", "tab", "user_active_degree", "follow_user_num_range", "onehot_feat4", "video_type"],
        "numeric": [
            {"column": "duration_ms", "buckets": 16, "dense": "log1p"},
            {"column": "is_live_streamer", "buckets": 4},
            {"column": "register_days", "dense": "standardise"},
        ],
        "tasks": [{"name": "click", "column": "is_click"}, {"name": "long_view", "column": "play_time_ms", "threshold": 18000}],
        "group": "user_id",
        "relation": "transfer",
        "min_count": 2,
    }
    data = prepared(tmp_path, schema, valid_fraction=0.1)
    assert sum(data.meta.rows.values()) == 200
    assert data.meta.rows["test"] == 50
    assert (data.meta.relation, data.meta.funnel, data.meta.group) == ("transfer", False, "user_id")
    clicks, played = raw(path, "is_click", "play_time_ms").T
    labels = np.concatenate([split.labels for split in data.splits.values()])
    assert labels.sum(axis=0).tolist() == [clicks.sum(), (played >= 18000).sum()]
    batch = next(BlockLoader(data.split("train"), 32, shuffle=True).batches())
    limits = np.array(list(data.meta.fields.values()))
    assert (batch.ids.numpy() < limits).all()


def test_kuairand_negative_codes_are_a_bucket_not_an_error(samples, tmp_path):
    column, path = "is_live_streamer", samples / "kuairand_sample.csv"
    values = raw(path, column)[:, 0]
    assert values.min() < 0
    schema = {
        "name": "kuairand",
        "files": {"train": str(path), "test": str(path)},
        "numeric": [{"column": column, "buckets": 4, "dense": "log1p"}],
        "tasks": [{"name": "click", "column": "is_click"}],
    }
    data = prepared(tmp_path, schema, valid_fraction=0)
    assert (data.split("train").ids[:, 0] > 0).all()
    assert np.isfinite(data.split("train").dense).all()
