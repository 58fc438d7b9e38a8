"""The packed folder: memory-mapped, checked on open, readable without the packages that made it."""

import os
from pathlib import Path

import numpy as np
import pytest

from dcrnn_fast.data import open_packed
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


def test_an_empty_array_is_not_read_whatever_memory_its_header_asks_for(table):
    file = table.prepare().path / "valid.ids.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"shape": (10**12, 2), "fortran_order": False, "descr": "<i4"})
    assert open_packed(file.parent).split("valid").ids.shape == (0, 2)


def test_verify_finds_a_flipped_byte(table):
    file = table.prepare().path / "train.dense.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    open_packed(file.parent)
    with pytest.raises(DataError, match=r"train\.dense\.npy is damaged"):
        open_packed(file.parent, verify=True)


def test_opening_needs_numpy_and_torch_alone_and_preparing_names_its_extra(table):
    code = """
from dcrnn_fast.data import BlockLoader, open_packed, prepare
from dcrnn_fast.errors import DataError
print(sum(len(batch.ids) for batch in BlockLoader(open_packed(sys.argv[1]).split("train"), 3).batches()))
try:
    prepare("hillstrom")
except DataError as error:
    print(error)
"""
    result = run_python("-c", WITHOUT_EXTRAS + code, table.prepare().path)
    assert result.stdout.startswith("8\n"), result.stderr
    assert "pip install 'dcrnn_fast[train]'" in result.stdout, result.stderr


def test_a_full_disk_is_reported_and_leaves_nothing_behind(table, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dcrnn_fast.data.packed.arrays.PackedWriter.append", full)
    with pytest.raises(DataError, match="No space left on device"):
        table.prepare()
    assert [path.suffix for path in (table.folder / "cache").iterdir()] == [".lock"]
