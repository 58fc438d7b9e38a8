"""The packed folder: memory-mapped, checked on open, readable without the packages that made it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dcrnn_fast.data import PackedMeta, open_packed
from dcrnn_fast.errors import DataError
from tests.processes import run_python

WITHOUT_EXTRAS = """
import sys
for name in ("duckdb", "pyarrow", "pydantic", "yaml", "pandas", "platformdirs"):
    sys.modules[name] = None
"""


def test_arrays_are_memory_mapped_with_the_documented_types(table):
    split = table.prepare().split("train")
    assert isinstance(split.ids, np.memmap)
    assert (split.ids.dtype, split.dense.dtype, split.labels.dtype) == (np.int32, np.float32, np.float32)
    assert (split.ids.shape, split.dense.shape, split.labels.shape, len(split)) == ((8, 2), (8, 1), (8, 1), 8)


def test_every_id_lies_below_its_fields_num_embeddings(census):
    limits = np.array(list(census.meta.fields.values()))
    for split in census.splits.values():
        assert (split.ids >= 0).all()
        assert (split.ids < limits).all()


def test_two_builds_are_identical_byte_for_byte(table):
    first = table.prepare()
    content = {path.name: path.read_bytes() for path in first.path.iterdir()}
    os.rename(first.path, table.folder / "aside")
    second = table.prepare()
    assert second.meta.digest == first.meta.digest
    assert {path.name: path.read_bytes() for path in second.path.iterdir()} == content


def test_the_digest_tells_two_contents_apart(table):
    before = table.prepare()
    table.write("test.csv", "city,price,click", [("a", 2, 0), ("d", 9, 0)])
    assert table.prepare().meta.digest != before.meta.digest


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda file, kept=kept: os.truncate(file, kept) for kept in (0, 20, 130)),
        Path.unlink,
        lambda file: file.write_bytes(file.read_bytes() + b"1"),
        lambda file: np.savez(file.open("wb"), ids=np.zeros((8, 2), np.int32)),
        lambda file: file.write_bytes(b"\x93NUMPY\x01\x00\x40\x00" + b"(" * 64),
    ],
    ids=["empty", "header cut", "rows cut", "missing", "longer", "an archive", "unreadable header"],
)
@pytest.mark.parametrize("array", ["train.ids", "test.labels"])
def test_an_array_that_cannot_be_opened_is_named(table, damage, array):
    file = table.prepare().path / f"{array}.npy"
    damage(file)
    with pytest.raises(DataError, match=rf"{array}\.npy cannot be opened \(missing or truncated\)"):
        open_packed(file.parent)


@pytest.mark.parametrize("replacement", [np.zeros((8, 2), np.int64), np.zeros((8, 3), np.int32), np.array([[print]], object)])
def test_an_array_of_another_shape_or_type_is_named_with_both_and_nothing_is_unpickled(table, replacement):
    folder = table.prepare().path
    np.save(folder / "train.ids.npy", replacement, allow_pickle=True)
    with pytest.raises(DataError, match=r"train\.ids\.npy holds .* states int32 \[8, 2\]"):
        open_packed(folder)


@pytest.mark.parametrize("change", [{"rows": {"train": 7, "valid": 0, "test": 2}}, {"funnel": True}, {"fields": {"city": 9, "price": 5}}])
def test_a_tampered_meta_is_refused(table, change):
    file = table.prepare().path / "meta.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=r"meta\.json does not match its own digest"):
        open_packed(file.parent)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format_version": 1}', '{"format_version": 999}', "null", "[" * 99_999, "1" * 5000])
def test_a_meta_that_is_no_meta_is_refused(table, content):
    file = table.prepare().path / "meta.json"
    file.write_text(content)
    with pytest.raises(DataError, match=r"meta\.json"):
        open_packed(file.parent)


def test_an_empty_array_whose_header_asks_for_memory_is_refused_without_reserving_it(table):
    file = table.prepare().path / "valid.ids.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"shape": (10**12, 2), "fortran_order": False, "descr": "<i4"})
    with pytest.raises(DataError, match=r"valid\.ids\.npy holds int32 \[1000000000000, 2\], but meta\.json states int32 \[0, 2\]"):
        open_packed(file.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": {"train": "8"}}, r"rows is \{'train': '8'\}, expected the number of rows"),
        ({"rows": {"../train": 8}}, "rows is .* expected the number of rows of train, valid and test"),
        ({"fields": {"city": -1, "price": 5}}, "fields is .* expected the number of ids by column"),
        ({"tasks": "click"}, "tasks is 'click', expected a list of texts"),
        ({"vocabulary": {"city": [1, "a"]}}, "vocabulary is .* expected a list of texts or of rising numbers"),
        ({"scaling": {"price": {"mean": 1, "std": 0, "treatment": "log1p"}}}, r"scaling is .* std \(above 0\)"),
        ({"checksums": {"../../etc/hosts": ""}}, "checksums names .* expected "),
        ({"extra": 1}, "has an unknown one"),
    ],
)
def test_a_sealed_meta_with_entries_of_wrong_types_is_refused_by_entry(table, change, said):
    file = table.prepare().path / "meta.json"
    content = {**json.loads(file.read_text()), **change}
    known = {key: value for key, value in content.items() if key != "extra"}
    content["digest"] = PackedMeta(**known).computed_digest()
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"meta\.json.*{said}"):
        open_packed(file.parent, verify=True)


def test_a_folder_without_meta_is_no_packed_data_set(tmp_path):
    with pytest.raises(DataError, match="no packed data set"):
        open_packed(tmp_path)


def test_verify_finds_a_flipped_byte(table):
    file = table.prepare().path / "train.dense.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    open_packed(file.parent)
    with pytest.raises(DataError, match=r"train\.dense\.npy is damaged"):
        open_packed(file.parent, verify=True)


def test_an_unknown_split_is_named_with_the_known_ones(table):
    with pytest.raises(DataError, match="no split 'dev'; it has train, valid, test"):
        table.prepare().split("dev")


def test_opening_and_loading_need_only_numpy_and_torch(table):
    folder = table.prepare().path
    code = """
from dcrnn_fast.data import BlockLoader, open_packed
print(sum(len(batch.ids) for batch in BlockLoader(open_packed(sys.argv[1]).split("train"), 3).batches()))
"""
    result = run_python("-c", WITHOUT_EXTRAS + code, folder)
    assert result.stdout.strip() == "8", result.stderr


def test_preparing_without_the_extra_says_how_to_install_it():
    code = """
from dcrnn_fast.data import prepare
from dcrnn_fast.errors import DataError
try:
    prepare("hillstrom")
except DataError as error:
    print(error)
"""
    result = run_python("-c", WITHOUT_EXTRAS + code)
    assert "pip install 'dcrnn_fast[train]'" in result.stdout, result.stderr


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(table):
    (table.folder / "cache").write_text("a file where the cache folder should be")
    with pytest.raises(DataError, match=r"cannot be written to .*cache.*DCRNN_FAST_CACHE"):
        table.prepare()


def test_a_full_disk_is_reported_and_leaves_nothing_behind(table, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dcrnn_fast.data.packed.writer.PackedWriter.append", full)
    with pytest.raises(DataError, match="No space left on device"):
        table.prepare()
    assert [path.name for path in (table.folder / "cache").iterdir()] == [".lock"]
