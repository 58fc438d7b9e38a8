"""A data set in parts is read as one folder of the same rows is."""

import dataclasses
import json
import pickle
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dcrnn_fast.data import BlockLoader, data_report, join_packed, open_packed, prepare
from dcrnn_fast.data.packed.meta import read_meta
from dcrnn_fast.data.packed.shards import ShardedArray
from dcrnn_fast.errors import DataError
from dcrnn_fast.serving import Ranker
from dcrnn_fast.training import load_config, train
from tests.refusals import refused, row, rows

KINDS = ("ids", "dense", "labels", "weight", "group")
SCHEMA = {
    "name": "shop",
    "files": {"train": "train.parquet", "valid": "valid.parquet", "test": "test.parquet"},
    "categorical": ["item", "user"],
    "numeric": [{"column": "price", "buckets": 4, "dense": "log1p"}],
    "tasks": [{"name": "click", "column": "click"}],
    "group": "user",
    "weight": "weight",
}
SETTINGS = {"model.embedding_dim": 4, "model.tower_dims": [8], "optimiser.epochs": 2, "seed": 1, "threads": 1}


def day(seed, rows=240):
    """The tables of a day by split."""
    rng = np.random.default_rng(seed)

    def table(count):
        return {
            "item": rng.integers(0, 9, count),
            "user": [f"u{number}" if number else None for number in rng.integers(0, 6, count)],
            "price": np.round(rng.lognormal(3, 1, count), 2),
            "click": rng.integers(0, 2, count),
            "weight": rng.uniform(1, 2, count),
        }

    return {"train": table(rows), "valid": table(rows // 4), "test": table(rows // 8)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Three days in parts, and the same rows in one folder."""
    folder, days = tmp_path_factory.mktemp("days"), [day(seed) for seed in range(3)]
    first = prepare(SCHEMA, days[0], cache_dir=folder)
    parts = [first, *(prepare(SCHEMA, one, cache_dir=folder, encoding=first.meta.encoding) for one in days[1:])]
    merged = {split: {name: np.concatenate([one[split][name] for one in days]) for name in days[0][split]} for split in days[0]}
    whole = prepare(SCHEMA, merged, cache_dir=folder, encoding=first.meta.encoding)
    return join_packed([part.path for part in parts], folder / "weeks" / "first"), whole, [part.path for part in parts]


@st.composite
def keys(draw, rows, columns):
    """What an array of these sizes is indexed by."""
    numbers = st.lists(st.integers(-rows, rows - 1), max_size=6).map(lambda found: np.array(found, np.int64)) if rows else st.nothing()
    truths = arrays.arrays(bool, rows)
    one = st.integers(-rows, rows - 1) if rows else st.nothing()
    key = draw(st.one_of(st.slices(rows), numbers, truths, one))
    several = [(key, [0, columns - 1])] if isinstance(key, slice) else []  # NumPy pairs two lists; nothing here asks for that
    return draw(st.sampled_from([key, (key, draw(st.integers(0, columns - 1))), (key, slice(0, 1)), *several]))


@given(st.data(), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_it_is_indexed_as_one_array_is(data, rows):
    whole = np.arange(sum(rows) * 3).reshape(-1, 3)
    parts = np.split(whole, np.cumsum(rows)[:-1])
    array = ShardedArray([lambda part=part: part for part in parts], rows, (3,), whole.dtype)
    key = data.draw(keys(len(whole), 3))
    expected, found = whole[key], array[key]
    assert np.array_equal(found, expected), key
    assert found.shape == expected.shape
    assert (array.shape, array.ndim, len(array), np.asarray(array).tolist()) == (whole.shape, 2, len(whole), whole.tolist())


def copied(parts, folder):
    """Copies of the parts, and the folder that joins these."""
    copies = [Path(shutil.copytree(part, folder / part.name)) for part in parts]
    return copies, join_packed(copies, folder / "joined").path


@pytest.mark.parametrize(
    ("key", "said"),
    [
        *((key, "expected a slice, a number") for key in (np.array([True]), np.zeros((2, 2), int), np.array([0.5]), [[0]])),
        (3, ""),
        (-4, ""),
    ],
    ids=str,
)
def test_what_is_no_row_is_refused(key, said):
    array = ShardedArray([lambda: np.arange(3)], [3], (), np.dtype(int))
    assert [array[::step].tolist() for step in (2**63, -(2**63))] == [[0], [2]], "a step beyond the rows leaves one"
    with pytest.raises(IndexError, match=said):
        array[key]


def test_parts_hold_the_rows_of_one_folder(both, tmp_path):
    """So they do behind a link, and in another process."""
    parts, whole, folders = both
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    for found in (parts, join_packed(folders, tmp_path / "link" / "joined"), pickle.loads(pickle.dumps(parts))):  # noqa: S301 (its own)
        assert found.meta.rows == whole.meta.rows
        for split, kind in product(whole.splits, KINDS):
            np.testing.assert_array_equal(np.asarray(getattr(found.split(split), kind)), getattr(whole.split(split), kind))


@pytest.mark.parametrize("shard", [0, 1])
def test_the_loader_gives_the_batches_of_one_folder(both, shard):
    def batches(data):
        loader = BlockLoader(data.split("train"), 50, shuffle=True, seed=3, block_rows=32, window_blocks=3, shards=2, shard=shard)
        return [[None if one is None else one.tolist() for one in batch] for batch in loader.batches(epoch=1, start=2)]

    assert batches(both[0]) == batches(both[1])


def test_a_run_on_parts_has_the_weights_and_scores_of_one_on_a_folder(both, tmp_path):
    results, scores = [], []
    for number, data in enumerate(both[:2]):
        result = train(load_config(None, {"data": str(data.path), **SETTINGS}), tmp_path / str(number))
        results.append({split: result[split] for split in ("valid", "test")})
        scores.append(Ranker.load(tmp_path / str(number)).predict({"item": [3, 99], "user": ["u1", None], "price": [20.0, 1.0]}))
    assert results[0] == results[1]
    assert {name: one.tolist() for name, one in scores[0].items()} == {name: one.tolist() for name, one in scores[1].items()}


def test_the_data_report_is_that_of_one_folder(both):
    parts, whole = ({**data_report(data), "digest": None} for data in both[:2])
    assert parts == whole


def test_parts_are_opened_when_they_are_read(both, tmp_path):
    copies, joined = copied(both[2], tmp_path)
    (copies[1] / "train.ids.npy").write_bytes(b"no array" * 1000)
    found = open_packed(joined)
    assert np.array_equal(found.split("train").ids[:240], both[0].split("train").ids[:240])
    with pytest.raises(DataError, match=r"train\.ids\.npy cannot be opened"):
        found.split("train").ids[240]
    with pytest.raises(DataError, match=r"train\.ids\.npy is damaged"):
        open_packed(joined, verify=True)


def test_a_part_that_is_gone_too_small_or_prepared_again_is_refused(both, tmp_path):
    copies, joined = copied(both[2], tmp_path)
    other = prepare(SCHEMA, day(9), cache_dir=tmp_path / "cache")
    shutil.rmtree(copies[2])
    shutil.copytree(other.path, copies[2])
    with pytest.raises(DataError, match="was prepared again; join the folders again"):  # of the same sizes; its ids may mean other items
        np.asarray(open_packed(joined).split("train").ids)
    (copies[1] / "train.ids.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"of a part of .*joined, is missing or truncated: it has 0 bytes"):
        open_packed(joined)
    shutil.rmtree(copies[1])
    with pytest.raises(DataError, match="is missing or truncated"):
        open_packed(joined)


def joins(folders):
    """A call that joins these of the parts, the folder that joins them, and another one."""
    return lambda both, tmp_path: join_packed(folders(both[0].path, *both[2]), tmp_path / "out")


def a_damaged_list_of_parts(change, both, tmp_path):
    broken = dataclasses.replace(read_meta(both[0].path / "meta.json"), **change)
    (tmp_path / "meta.json").write_text(json.dumps(broken.content() | {"digest": broken.computed_digest()}))
    open_packed(tmp_path)


test_it_is_refused = refused([
    *rows("a damaged list of parts", a_damaged_list_of_parts, DataError, cases=[
        ({"rows": {"train": 1, "valid": 180, "test": 90}}, "the rows of its shards are not"),
        ({"shards": {"a": {"train": 720}}}, "shards gives a the splits"),
        ({"shards": [1]}, "shards is"),
        ({"shards": {"a\0": {"train": 720, "valid": 180, "test": 90}}}, "shards is"),
    ]),
    row("no part", joins(lambda *_: []), DataError, "at least one"),
    row("a joined folder", joins(lambda joined, *_: [joined]), DataError, "is in parts itself"),
    row("a part twice", joins(lambda joined, one, two, three: [one, two, one]), DataError, "is given twice"),
    row("no packed folder", joins(lambda joined, *_: [joined / "none"]), DataError, "not a packed data set"),
    row("a path", joins(lambda joined, one, *_: str(one)), TypeError, "a list of paths"),
    row("a folder that exists", lambda both: join_packed(both[2], both[2][0]), DataError, "exists"),
    row("parts of another encoding", lambda both, tmp_path: join_packed([both[2][0], prepare(SCHEMA, day(7), cache_dir=tmp_path).path],
        tmp_path / "out"), DataError, "differ in"),
])  # fmt: skip
