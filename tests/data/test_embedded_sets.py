"""The two data sets inside the package: size, checksums, counts, and that the committed script makes them from the raw files."""

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import catalog, known_data_sets, prepare

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


def test_census_has_the_official_split_labels_and_features(census):
    labels, meta = {split: np.asarray(census.split(split).labels) for split in census.splits}, census.meta
    assert all((np.asarray(split.ids) < list(meta.fields.values())).all() for split in census.splits.values())
    train = np.concatenate([labels["train"], labels["valid"]])
    assert (len(train), len(labels["test"])) == (199_523, 99_762)
    assert (train[:, 0].sum(), labels["test"][:, 0].sum(), train[:, 1].sum()) == (12_382, 6_186, 86_485)
    assert (train[:, 1].mean(), labels["test"][:, 1].mean()) == pytest.approx((0.4335, 0.4325), abs=5e-5)
    table = pq.read_table(catalog.EMBEDDED / "census-income.parquet", columns=["split", "income"]).to_pandas()
    official = (table.income[table.split == "test"] == "50000+.").to_numpy()
    np.testing.assert_array_equal(labels["test"][:, 0] == 1, official)
    assert (len(meta.fields), meta.has_weight) == (39, False)
    assert not {*meta.fields, *meta.dense} & {"income", "marital_status", "instance_weight", "split"}
    assert (meta.tasks, meta.relation, meta.funnel) == (("income", "never_married"), "independent", False)


@pytest.mark.parametrize("column", ["wage_per_hour", "capital_gains", "capital_losses", "dividends_from_stocks"])
def test_zero_has_a_bucket_of_its_own_in_the_zero_heavy_census_columns(census, column):
    raw = pq.read_table(catalog.EMBEDDED / "census-income.parquet", columns=["split", column]).to_pandas()
    zero = (raw[column][raw.split == "test"] == 0).to_numpy()
    ids = np.asarray(census.split("test").ids[:, list(census.meta.fields).index(column)])
    assert np.unique(ids[zero]).tolist() == [1]
    assert (ids[~zero] > 1).all()


def test_hillstrom_has_the_published_counts_features_and_funnel(hillstrom):
    labels = np.concatenate([hillstrom.split(split).labels for split in hillstrom.splits])
    assert len(labels) == 64_000
    assert labels.sum(axis=0).tolist() == [9_394, 578]
    assert not ((labels[:, 1] == 1) & (labels[:, 0] == 0)).any()
    assert hillstrom.meta.rows["test"] == 19_200
    columns = pq.read_schema(catalog.EMBEDDED / "hillstrom.parquet").names
    assert {*hillstrom.meta.fields, *hillstrom.meta.dense} == set(columns[:9]), "all but spend"
    assert (hillstrom.meta.tasks, hillstrom.meta.relation, hillstrom.meta.funnel) == (("visit", "conversion"), "chain", True)


def test_another_seed_draws_other_validation_rows_and_the_same_test_rows(hillstrom):
    other = prepare("hillstrom", seed=1)
    assert not np.array_equal(other.split("valid").labels, hillstrom.split("valid").labels)
    np.testing.assert_array_equal(other.split("test").labels, hillstrom.split("test").labels)
