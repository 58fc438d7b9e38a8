"""A packed folder behind a file system of pyarrow's: on this machine, by file://, and in S3, for which moto stands in."""

import dataclasses
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from pyarrow.fs import LocalFileSystem, copy_files

from dcrnn_fast.data import prepare
from dcrnn_fast.data.packed import remote
from dcrnn_fast.data.packed.arrays import file_sha256, write_meta
from dcrnn_fast.data.packed.meta import read_meta
from dcrnn_fast.data.packed.shards import joined
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate, load_config, train
from tests.data.packed.test_shards import KINDS, SCHEMA, SETTINGS, day


@pytest.fixture
def packed(tmp_path):
    """Two days, in parts in one folder, as Spark writes them."""
    first, store = prepare(SCHEMA, day(0), cache_dir=tmp_path / "made"), tmp_path / "store"
    days = {"part-0": first, "part-1": prepare(SCHEMA, day(1), cache_dir=tmp_path / "made", encoding=first.meta.encoding)}
    metas = {name: shutil.copytree(one.path, store / name) / "meta.json" for name, one in days.items()}
    write_meta(store, joined((name, read_meta(meta), file_sha256(meta)) for name, meta in metas.items()))
    return store


@pytest.fixture
def bucket(monkeypatch):
    """The address of a folder in S3."""
    server = pytest.importorskip("moto.server", reason="moto is not installed: make extra NAME=s3")
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    stand_in = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    stand_in.start()
    host, port = stand_in.get_host_and_port()
    address = f"s3://bucket/packed?scheme=http&endpoint_override={host}%3A{port}&region=us-east-1&allow_bucket_creation=true"
    remote.file_system(address)[0].create_dir("bucket")
    yield address
    stand_in.stop()


@pytest.fixture
def fetched(monkeypatch):
    """The files that were fetched."""
    names, fetch = [], remote._fetch

    def noted(system, source, file, *more):
        fetch(system, source, file, *more)
        names.append(f"{file.parent.name}/{file.name}")

    monkeypatch.setattr(remote, "_fetch", noted)
    return names


def rows_of(data):
    return {(split, kind): np.asarray(getattr(rows, kind)).tolist() for split, rows in data.splits.items() for kind in KINDS}


def refused(store, cache, words):
    with pytest.raises(DataError, match=words):
        prepare(store.as_uri(), cache_dir=cache)


def test_what_was_fetched_stays_when_a_file_is_damaged(packed, tmp_path, fetched):
    damaged = packed / "part-1" / "train.ids.npy"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(packed, tmp_path / "cache", r"part-1/train\.ids\.npy is damaged: sha256 .*, expected .*; write the data set again")
    damaged.write_bytes(content)
    before = len(fetched)
    prepare(packed.as_uri(), cache_dir=tmp_path / "cache")
    assert "part-1/train.ids.npy" in fetched[before:]
    assert len(fetched) == len(set(fetched)) == len(prepare(packed).meta.checksums)


def test_only_what_is_damaged_in_the_cache_is_fetched_again(packed, tmp_path, fetched):
    said, progress = [], {"progress": lambda *what: said.append(what)}
    found, folder = prepare(packed.as_uri(), cache_dir=tmp_path / "cache", **progress), prepare(packed)
    count = len(folder.meta.checksums)
    assert (found.meta, rows_of(found), len(fetched)) == (folder.meta, rows_of(folder), count)
    assert (said, said[0], said[-1]) == (sorted(said), ("fetching files", 0, count), ("fetching files", count, count))
    said.clear()
    assert prepare(packed.as_uri(), cache_dir=tmp_path / "cache", **progress).path == found.path
    assert (len(fetched), said) == (count, [])
    cut = found.path / "part-1" / "train.ids.npy"
    cut.write_bytes(cut.read_bytes()[:10])
    assert rows_of(prepare(packed.as_uri(), cache_dir=tmp_path / "cache")) == rows_of(folder)
    assert fetched[count:] == ["part-1/train.ids.npy"]


class Endless:
    """A file system whose `name` is a file of all but endless bytes. ``reads`` counts how often it is read; arrays are read later."""

    MOST = 10_000_000

    def __init__(self, system, name):
        self._system, self._name, self._begun, self.reads = system, name, threading.Event(), 0

    def open_input_stream(self, path):
        if path.endswith(self._name):
            return nullcontext(self)
        assert not path.endswith(".npy") or self._begun.wait(30)
        return self._system.open_input_stream(path)

    def read(self, size=None):
        self._begun.set()
        self.reads += 1
        return b"x" if self.reads < self.MOST else b""


def behind_an_endless_file(packed, monkeypatch):
    """The folder behind a file system whose first array is endless."""
    system, root = remote.file_system(packed.as_uri())
    endless = Endless(system, next(name for name in prepare(packed).meta.checksums if name.endswith(".npy")))
    monkeypatch.setattr(remote, "file_system", lambda address: (endless, root))
    return endless


def test_a_user_who_stops_it_waits_for_no_file_and_may_go_on_later(packed, tmp_path, monkeypatch):
    def stop(what, done, total):
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        endless = behind_an_endless_file(packed, patch)
        with pytest.raises(KeyboardInterrupt):
            prepare(packed.as_uri(), cache_dir=tmp_path / "cache", progress=stop)
    assert endless.reads < Endless.MOST
    assert rows_of(prepare(packed.as_uri(), cache_dir=tmp_path / "cache")) == rows_of(prepare(packed))


def test_a_run_leads_to_no_endpoint_of_its_own(packed, tmp_path):
    folder = tmp_path / "run"
    train(load_config(None, {"data": str(packed), **SETTINGS}), folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace(str(packed), "s3://bucket/packed?endpoint_override=127.0.0.1"))
    with pytest.raises(DataError, match="name that address, --data, to fetch it"):
        evaluate(folder)


def test_it_is_fetched_once_where_several_open_it_at_the_same_time(packed, tmp_path, fetched):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(packed.as_uri(), cache_dir=tmp_path / "cache").meta, range(4)))
    assert all(meta == found[0] for meta in found)
    assert len(fetched) == len(found[0].checksums)


def test_another_data_set_at_the_address_is_another_entry(packed, tmp_path):
    first = prepare(packed.as_uri(), cache_dir=tmp_path / "cache")
    shutil.rmtree(packed)
    shutil.copytree(prepare(SCHEMA, day(5), cache_dir=tmp_path / "made").path, packed)
    second = prepare(packed.as_uri(), cache_dir=tmp_path / "cache")
    assert second.path != first.path
    assert rows_of(second) == rows_of(prepare(packed))


@pytest.mark.parametrize("part", ["../made", "/etc", "part-0/../../made"])
def test_no_file_is_written_outside_the_cache(packed, tmp_path, part):
    meta = read_meta(packed / "meta.json")
    shards = {part if name == "part-0" else name: rows for name, rows in meta.shards.items()}
    checksums = {name.replace("part-0/", f"{part}/", 1): value for name, value in meta.checksums.items()}
    meta = dataclasses.replace(meta, shards=shards, checksums=checksums)
    write_meta(packed, dataclasses.replace(meta, digest=meta.computed_digest()))
    refused(packed, tmp_path / "cache", "expected parts in its folder")


def test_an_address_that_leads_nowhere_or_holds_a_password_is_refused(packed, tmp_path):
    refused(packed / "none", tmp_path / "cache", "none cannot be read")
    with pytest.raises(DataError, match=r"nowhere://there cannot be reached: .*nowhere"):
        prepare("nowhere://there", cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"^(?!.*secret).*the address holds a password"):
        prepare("s3://key:secret@bucket/packed", cache_dir=tmp_path)
    (packed / "meta.json").write_text("{}")
    refused(packed, tmp_path / "cache", rf"^{packed.as_uri()}/meta\.json has format_version None")


def test_a_run_on_data_in_s3_has_the_bytes_of_one_on_the_folder(packed, bucket, tmp_path):
    system, root = remote.file_system(bucket)
    copy_files(str(packed), root, source_filesystem=LocalFileSystem(), destination_filesystem=system)
    for name, data in (("folder", str(packed)), ("s3", bucket)):
        train(load_config(None, {"data": data, **SETTINGS}), tmp_path / name)
    assert (tmp_path / "s3" / "model.safetensors").read_bytes() == (tmp_path / "folder" / "model.safetensors").read_bytes()
