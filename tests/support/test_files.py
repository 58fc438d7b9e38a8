"""Files are replaced whole, and the temporary folder of a killed process is deleted by the next one."""

import errno
import os
import tempfile

import pytest

from dcrnn_fast.support.files import LOCK, SCRATCH, replacing, scratch_folder, write_bytes, write_text


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
