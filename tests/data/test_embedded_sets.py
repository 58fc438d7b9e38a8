"""The two data sets inside the package: size, checksums, counts, and that the committed script makes them from the raw files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import catalog, known_data_sets, prepare

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "build_data.py"
FILES = ("census-income.parquet", "hillstrom.parquet")


def test_the_readme_lists_the_checksum_size_and_rows_of_each_file():
    assert known_data_sets() == ("census-income", "hillstrom")
    assert sum((catalog.EMBEDDED / name).stat().st_size for name in FILES) < 6_000_000
    readme = (catalog.EMBEDDED / "README.md").read_text()
    for name in FILES:
        path = catalog.EMBEDDED / name
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert hashlib.sha256(path.read_bytes()).hexdigest() in row
        assert f"{path.stat().st_size:,}" in row
        assert f"{pq.read_metadata(path).num_rows:,}" in row


def test_the_readme_lists_the_checksums_that_the_script_demands():
    demanded = set(re.findall(r'"([0-9a-f]{64})"', SCRIPT.read_text()))
    assert len(demanded) == 3
    assert demanded <= set(re.findall(r"[0-9a-f]{64}", (catalog.EMBEDDED / "README.md").read_text()))


def test_census_has_the_official_split_and_label_counts(census):
    labels = {split: np.asarray(census.split(split).labels) for split in census.splits}
    train = np.concatenate([labels["train"], labels["valid"]])
    assert (len(train), len(labels["test"])) == (199_523, 99_762)
    assert (train[:, 0].sum(), labels["test"][:, 0].sum()) == (12_382, 6_186)
    assert train[:, 1].sum() == 86_485
    assert train[:, 1].mean() == pytest.approx(0.4335, abs=5e-5)
    assert labels["test"][:, 1].mean() == pytest.approx(0.4325, abs=5e-5)


def test_census_test_rows_are_the_official_test_rows_in_order(census):
    table = pq.read_table(catalog.EMBEDDED / "census-income.parquet", columns=["split", "income"]).to_pandas()
    official = (table.income[table.split == "test"] == "50000+.").to_numpy()
    np.testing.assert_array_equal(np.asarray(census.split("test").labels[:, 0]) == 1, official)


def test_census_uses_neither_labels_nor_the_survey_weight_as_features(census):
    features = {*census.meta.fields, *census.meta.dense}
    assert len(census.meta.fields) == 39
    assert not features & {"income", "marital_status", "instance_weight", "split"}
    assert not census.meta.has_weight
    assert (census.meta.tasks, census.meta.relation, census.meta.funnel) == (("income", "never_married"), "independent", False)


@pytest.mark.parametrize("column", ["wage_per_hour", "capital_gains", "capital_losses", "dividends_from_stocks"])
def test_zero_has_a_bucket_of_its_own_in_the_zero_heavy_census_columns(census, column):
    raw = pq.read_table(catalog.EMBEDDED / "census-income.parquet", columns=["split", column]).to_pandas()
    zero = (raw[column][raw.split == "test"] == 0).to_numpy()
    ids = np.asarray(census.split("test").ids[:, list(census.meta.fields).index(column)])
    assert np.unique(ids[zero]).tolist() == [1]
    assert (ids[~zero] > 1).all()


def test_hillstrom_has_the_published_counts_and_is_a_funnel(hillstrom):
    labels = np.concatenate([hillstrom.split(split).labels for split in hillstrom.splits])
    assert len(labels) == 64_000
    assert labels.sum(axis=0).tolist() == [9_394, 578]
    assert not ((labels[:, 1] == 1) & (labels[:, 0] == 0)).any()
    assert hillstrom.meta.rows["test"] == 19_200
    assert (hillstrom.meta.tasks, hillstrom.meta.relation, hillstrom.meta.funnel) == (("visit", "conversion"), "chain", True)


def test_hillstrom_uses_the_first_nine_columns_and_not_spend(hillstrom):
    columns = pq.read_schema(catalog.EMBEDDED / "hillstrom.parquet").names
    assert {*hillstrom.meta.fields, *hillstrom.meta.dense} == set(columns[:9])


def test_another_seed_draws_other_validation_rows_and_the_same_test_rows(hillstrom):
    other = prepare("hillstrom", seed=1)
    assert not np.array_equal(other.split("valid").labels, hillstrom.split("valid").labels)
    np.testing.assert_array_equal(other.split("test").labels, hillstrom.split("test").labels)
