"""Files are replaced whole, locks have one holder, and the temporary folder of a killed process is deleted by the next one.

What is read as a file of a run or of packed data is one: a folder, a pipe, a socket and a device are refused before they are opened.
"""

import errno
import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from dcrnn_fast.data.packed.arrays import file_sha256
from dcrnn_fast.data.read.row_files import expand
from dcrnn_fast.errors import CheckpointError, DataError
from dcrnn_fast.support import strict_json
from dcrnn_fast.support.files import LOCK, SCRATCH, regular_file, replacing, scratch_folder, write_bytes, write_text
from dcrnn_fast.support.locks import locked
from dcrnn_fast.training.folder.tensors import read_safetensors


def test_a_reader_of_the_old_file_is_not_disturbed_by_the_new_one(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer: ä")
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new and longer: ä"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights"
    write_bytes(path, b"old")

    def fill_the_disk():
        with replacing(path) as beside:
            beside.write_bytes(b"n")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_the_disk()
    assert path.read_bytes() == b"old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "folder", "text")
    assert sorted(os.listdir(tmp_path)) == ["folder", "weights"]


def test_what_a_killed_process_left_is_deleted_and_a_users_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, own = tmp_path / f"{SCRATCH}left", tmp_path / f"{SCRATCH}own"
    for folder in (left, own):
        folder.mkdir()
        (folder / "model.pt2").write_bytes(b"weights")
    (tmp_path / f"{SCRATCH}left{LOCK}").touch()
    with scratch_folder() as first, scratch_folder() as second:
        assert (left.exists(), first.is_dir(), second.is_dir()) == (False, True, True)
    assert list(tmp_path.iterdir()) == [own]
    assert (own / "model.pt2").exists()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """One of each kind in the working directory."""
    monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 characters
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("device").symlink_to("/dev/null")
    Path("file").write_text("{}")
    Path("link").symlink_to("file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        yield


def test_a_file_and_a_link_to_one_are_read(places):
    for name in ("file", "link"):
        assert strict_json.load(regular_file(Path(name))) == {}
    with pytest.raises(FileNotFoundError):
        regular_file(Path("absent"))


@pytest.mark.parametrize("name", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_with_its_name_and_what_is_wrong(places, name):
    """What read them would wait for a writer for ever, or read on."""
    wrong = "it is a folder" if name == "folder" else "it is not a regular file"
    for read in (regular_file, strict_json.load):
        with pytest.raises(OSError, match=f"{wrong}: '{name}'"):
            read(Path(name))
    with pytest.raises(CheckpointError, match=f"^{name} is damaged or no safetensors file .*{wrong}"):
        read_safetensors(Path(name))
    with pytest.raises(DataError, match=f"^{name}.*({wrong}|not a regular file)"):
        file_sha256(Path(name))
    if name != "folder":
        with pytest.raises(DataError, match=f"^the input file {name} is not a regular file$"):
            expand("the input", Path(name))


def test_a_lock_has_one_holder_until_it_is_released(tmp_path):
    with locked(tmp_path / "lock") as first:
        with locked(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        with locked(tmp_path / "lock") as third:
            assert not third
    with locked(tmp_path / "lock") as again:
        assert again


def test_a_killed_holder_leaves_no_lock_even_if_a_forked_child_lives_on(tmp_path):
    (told, tell), (woken, wake) = os.pipe(), os.pipe()
    if (holder := os.fork()) == 0:
        with locked(tmp_path / "lock") as mine:
            if os.fork() == 0:
                os.write(tell, b"holds it" if mine else b"does not")
                os.read(woken, 1)
                os._exit(0)
            signal.pause()
    try:
        assert os.read(told, 8) == b"holds it"
        with locked(tmp_path / "lock") as mine:
            assert not mine
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with locked(tmp_path / "lock") as mine:
            assert mine, "the forked child, which still waits, holds the lock"
    finally:
        os.write(wake, b"!")
        for descriptor in (told, tell, woken, wake):
            os.close(descriptor)
