"""The cache of prepare: which calls share an entry, damaged entries, and several processes at once."""

import builtins
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest

from dcrnn_fast.data import default_cache_dir, prepare
from dcrnn_fast.errors import DataError


def test_the_second_call_opens_the_cache_whatever_type_its_numbers_have(table):
    path = table.prepare(seed=1, valid_fraction=0.25).path
    (path / "mark").touch()
    assert table.prepare(seed=np.int64(1), valid_fraction=np.float32(0.25)).path == path
    assert (path / "mark").exists(), "it was encoded again"


def test_seed_fraction_schema_and_source_each_make_another_cache_entry(table):
    paths = [table.prepare(valid_fraction=0.25).path]
    paths.append(table.prepare(valid_fraction=0.25, seed=1).path)
    paths.append(table.prepare(valid_fraction=0.5).path)
    paths.append(table.prepare(valid_fraction=0.25, min_count=2).path)
    table.write("test.csv", "city,price,click", [("a", 2, 0)])
    paths.append(table.prepare(valid_fraction=0.25).path)
    assert len(set(paths)) == 5


def test_a_damaged_cache_entry_is_built_anew(table):
    damaged = table.prepare().path / "train.ids.npy"
    damaged.write_bytes(b"")
    assert len(table.prepare().split("train").ids) == 8


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["meta.json", "train.ids.npy"])
def test_an_entry_that_the_system_does_not_read_now_is_not_deleted(table, monkeypatch, code, name):
    def refused(path, *arguments, real, **options):
        if Path(str(path)).name == name:
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *arguments, **options)

    entry = table.prepare().path
    (entry / "mark").touch()
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", partial(refused, real=open))  # NumPy's
        patch.setattr(Path, "open", partialmethod(refused, real=Path.open))
        patch.setattr(Path, "read_text", partialmethod(refused, real=Path.read_text))
        with pytest.raises(DataError, match=rf"{name} cannot be read: {os.strerror(code)}; check its permissions"):
            table.prepare()
    assert table.prepare().path == entry
    assert (entry / "mark").exists(), "the entry was deleted and built again"


def test_the_cache_folder_comes_from_the_environment_or_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("DCRNN_FAST_CACHE", str(tmp_path / "here"))
    assert default_cache_dir() == tmp_path / "here"
    monkeypatch.delenv("DCRNN_FAST_CACHE")
    assert default_cache_dir().is_relative_to(Path.home())


def test_half_written_entries_of_killed_processes_alone_are_deleted(table):
    names = (".shop-0123456789abcdef.packed.tmp", ".tool.tmp", ".tool.packed.tmp", ".shop-0123456789abcdef.77.tmp")
    leftover, *strangers = [table.prepare().path.parent / name for name in names]
    for folder in (leftover, *strangers):
        folder.mkdir()
        (folder / "train.ids.npy").write_bytes(b"half")
    table.prepare()
    assert not leftover.exists()
    assert [stranger.name for stranger in strangers if not stranger.exists()] == []


def test_an_entry_that_another_process_writes_now_is_spared(table, monkeypatch):
    from dcrnn_fast.data.build import build as preparing

    real, seen = preparing.read_tables, []

    def read_tables(schema, paths, folder, *arguments):
        if not seen:
            seen.append(folder)
            table.prepare(min_count=2)
            assert folder.exists()
        return real(schema, paths, folder, *arguments)

    monkeypatch.setattr(preparing, "read_tables", read_tables)
    table.prepare(seed=1, valid_fraction=0.5)
    assert seen
    assert not seen[0].exists()


def test_threads_that_prepare_at_once_make_one_entry(table):
    table.write("train.csv", "city,price,click", [(f"c{i % 50}", i, i % 2) for i in range(5000)])
    schema = table.save()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: prepare(schema, cache_dir=table.folder / "cache").path, range(3)))
    assert len(set(found)) == 1
    assert {path.name for path in found[0].parent.iterdir()} == {found[0].name, f".{found[0].name}.lock"}
