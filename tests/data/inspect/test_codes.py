"""A drafted column of whole numbers is a category too where the labels jump from value to value: it holds codes."""

import numpy as np
import pandas as pd
import pytest
import yaml

from dcrnn_fast.data import draft_schema, prepare

ROWS = 12_000
CODE = "a code? It is a number below too"
USER = np.random.default_rng(4).permutation(np.arange(ROWS) // 40)


def drawn(rate):
    """Labels, by the logits of the rows."""
    return (np.random.default_rng([0, 1]).random(len(rate)) < 1 / (1 + np.exp(1 - rate))).astype(int)


def effects(values):
    """A number drawn for each value, for its rows."""
    return np.random.default_rng([0, 2]).normal(size=int(values.max()) + 1)[values]


def values(of=200, seed=0):
    return np.random.default_rng([seed, 3]).integers(0, of, ROWS)


def drafted(folder, columns, **options):
    pd.DataFrame(columns).to_parquet(folder / "log.parquet", index=False)
    text = draft_schema([str(folder / "log.parquet")], **options)
    schema = yaml.safe_load(text)
    return text, *({one["column"]: one for one in schema.get(kind, ())} for kind in ("categorical", "numeric"))


def test_a_code_is_a_category_and_a_number_and_the_draft_runs(tmp_path):
    columns = {"site": values(), "price": np.linspace(0, 1, ROWS), "click": drawn(effects(values()))}
    text, categories, numbers = drafted(tmp_path, columns)
    assert categories == {"site": {"column": "site"}}
    assert numbers["site"] == {"column": "site", "dense": "log1p"}
    assert text.count(CODE) == 1
    (tmp_path / "drafted.yaml").write_text(text)
    meta = prepare(tmp_path / "drafted.yaml", cache_dir=tmp_path / "cache").meta
    assert (list(meta.fields), list(meta.dense)) == (["site"], ["site", "price"])


@pytest.mark.parametrize(
    "logits",
    [lambda count: np.zeros(len(count)), lambda count: 0.02 * count, lambda count: np.sin(count / 15)],
    ids=["flat", "rise", "wave"],
)
def test_a_number_whose_labels_change_little_is_no_code(tmp_path, logits):
    _, categories, numbers = drafted(tmp_path, {"count": values(), "city": values(3).astype(str), "click": drawn(logits(values()))})
    assert (set(categories), set(numbers)) == ({"city"}, {"count"})


def test_one_task_is_enough(tmp_path):
    click = drawn(np.zeros(ROWS))
    columns = {"site": values(), "city": values(3).astype(str), "click": click, "order": click * drawn(1 + 2 * effects(values()))}
    assert "site" in drafted(tmp_path, columns)[1]
    assert "site" not in drafted(tmp_path, columns, tasks=["click"])[1]


def test_missing_cells_are_told_by_the_code_and_need_no_buckets(tmp_path):
    site = pd.Series(values()).astype("Int64").mask(np.arange(ROWS) % 7 == 0)
    text, categories, numbers = drafted(tmp_path, {"site": site, "click": drawn(effects(values()))})
    assert (set(categories), numbers) == ({"site"}, {"site": {"column": "site", "dense": "log1p"}})
    (tmp_path / "drafted.yaml").write_text(text)
    assert prepare(tmp_path / "drafted.yaml", cache_dir=tmp_path / "cache").meta.fields == {"site": 202}


@pytest.mark.parametrize(
    ("own", "split"),
    [(np.arange(ROWS) // 60, {"time": pd.date_range("2024-01-01", periods=ROWS, freq="min")}), (USER, {"user_id": USER})],
    ids=["period", "user"],
)
def test_what_a_number_tells_of_its_own_period_or_user_alone_is_no_code(tmp_path, own, split):
    columns = {"batch": own * 7 % 1009, "city": values(3).astype(str), "click": drawn(1.5 * effects(own))}
    assert "batch" in drafted(tmp_path, columns)[1], "without a time or users, rows of the same one are drawn into both parts"
    assert "batch" not in drafted(tmp_path, split | columns)[1]


def test_a_csv_file_is_judged_as_the_same_rows_of_parquet_are(tmp_path):
    columns = {"site": values(), "count": values(90, 5), "click": np.where(drawn(effects(values())), "yes", "no")}
    of_parquet = drafted(tmp_path, columns)[1:]
    pd.DataFrame(columns).to_csv(tmp_path / "log.csv", index=False)
    of_csv = yaml.safe_load(draft_schema([str(tmp_path / "log.csv")]))
    assert set(of_parquet[0]) == {"site"}
    assert ([*of_parquet[0].values()], [*of_parquet[1].values()]) == (of_csv["categorical"], of_csv["numeric"])


@pytest.mark.parametrize(("label", "is_code"), [(None, True), (0, False), (1, False), (pd.NA, False)])
def test_only_rows_with_labels_that_differ_make_a_code(tmp_path, label, is_code):
    click = pd.Series(drawn(effects(values()))).astype("Int64").mask(values() > 150)
    click = click if label is None else pd.Series([label] * ROWS, dtype="Int64")
    assert ("site" in drafted(tmp_path, {"site": values(), "city": values(3).astype(str), "click": click}, tasks=["click"])[1]) == is_code


def test_columns_whose_names_differ_in_case_alone_are_judged_apart(tmp_path):
    columns = {"A": values(90, 5), "a": values(), "city": values(3).astype(str), "click": drawn(effects(values()))}
    assert set(drafted(tmp_path, columns)[1]) == {"a", "city"}
