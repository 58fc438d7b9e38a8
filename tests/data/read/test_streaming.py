"""Tables are read in batches: the batches change nothing, and what is learned of long columns is exact or says how exact it is."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import prepare, prepare_folder
from dcrnn_fast.data.build import staging as staged
from dcrnn_fast.data.read import row_files
from dcrnn_fast.errors import DataError

DIGESTS = {
    ("census-income", 0, 0.1): "d862ee4b24dc6de60539b8873603e90810cf8d10017b5361c663325cf829b567",
    ("hillstrom", 0, 0.1): "97a8b8da11b69e1a8b1af77a6ed4f4592652a413d3374f84b3b34e057a587664",
    ("hillstrom", 3, 0.2): "21aaf0856236eeb0c2940dc3c33f21f26199ef626ab25e407c6d530735d0917a",
}
"""A digest covers meta.json and every array."""


@pytest.mark.parametrize(("name", "seed", "valid_fraction"), DIGESTS)
def test_the_embedded_sets_keep_their_bits(name, seed, valid_fraction):
    data = prepare(name, seed=seed, valid_fraction=valid_fraction)
    assert data.meta.digest == DIGESTS[name, seed, valid_fraction]


def long_table(table, rows=5_000):
    draw = np.random.default_rng(0)
    content = {
        "city": pa.array([f"c{int(x)}" for x in 300 * draw.random(rows) ** 2]),
        "price": pa.array(draw.lognormal(size=rows), mask=draw.random(rows) < 0.1),
        "click": pa.array((draw.random(rows) < 0.3).astype(np.int8)),
        "user": pa.array(draw.integers(0, 900, rows)),
    }
    for part in range(3):
        bounds = slice(part * rows // 3, (part + 1) * rows // 3)
        pq.write_table(pa.table({name: column[bounds] for name, column in content.items()}), table.folder / f"part-{part}.parquet")
    return {
        "files": {"all": "part-*.parquet", "test_fraction": 0.2},
        "group": "user",
        "categorical": ["city", {"column": "user", "min_count": 3}],
        "numeric": [{"column": "price", "buckets": 40, "dense": "log1p"}],
    }


def test_the_size_of_the_batches_changes_no_bit(table, monkeypatch):
    changes = long_table(table)
    whole = table.prepare(**changes, valid_fraction=0.1)
    monkeypatch.setattr(row_files, "BATCH_ROWS", 101)
    monkeypatch.setattr(staged, "MAPPED_TEXTS", 50)
    parts = prepare(table.save(**changes), cache_dir=table.folder / "another", valid_fraction=0.1)
    assert parts.meta.encoding == whole.meta.encoding
    for split in whole.splits:
        for kind in ("ids", "dense", "labels"):
            np.testing.assert_array_equal(getattr(parts.split(split), kind), getattr(whole.split(split), kind))
        one, other = (np.unique(data.split(split).group, return_inverse=True)[1] for data in (parts, whole))
        assert len(set(zip(one.tolist(), other.tolist(), strict=True))) == len(set(one.tolist())) == len(set(other.tolist()))


def test_the_number_of_workers_changes_no_bit_and_progress_counts_all_rows(table):
    schema, seen = table.save(**long_table(table)), {}
    options = [{"workers": 1}, {"workers": 2}, {"workers": 5, "progress": lambda what, *counts: seen.__setitem__(what, counts)}]
    packed = [prepare_folder(schema, table.folder / f"packed-{one['workers']}", **one) for one in options]
    assert len({data.meta.digest for data in packed}) == 1
    assert list(seen) == ["reading rows", "learning columns", "encoding rows"]
    assert seen["reading rows"] == seen["encoding rows"] == (5_000, 5_000)


def test_an_interrupted_prepare_leaves_nothing(table):
    def stop(what, done, total):
        if what == "encoding rows":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_folder(table.save(), table.folder / "out" / "packed", progress=stop)
    assert [path.suffix for path in (table.folder / "out").iterdir()] == [".lock"]


def test_a_packed_folder_opens_as_data_and_keeps_its_encoding(table):
    first = prepare_folder(table.save(), table.folder / "packed", valid_fraction=0.25)
    again = prepare(table.folder / "packed")
    assert (again.path, again.meta.digest) == (first.path, first.meta.digest)
    encoding = {"vocabulary": first.meta.vocabulary, "scaling": first.meta.scaling}
    assert prepare(table.folder / "packed", encoding=encoding).meta.digest == first.meta.digest
    with pytest.raises(DataError, match="packed has another encoding than the one asked for"):
        prepare(table.folder / "packed", encoding={"vocabulary": {}, "scaling": {}})
    with pytest.raises(DataError, match="packed exists; delete it"):
        prepare_folder(table.save(), table.folder / "packed")
    assert sorted(path.name for path in first.path.iterdir()) == sorted(["meta.json", "schema.yaml", *first.meta.checksums])
