import errno
import os

import pytest

from dcrnn_fast.support.files import replacing, write_bytes, write_text


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
    assert os.listdir(tmp_path) == ["weights"]


def test_a_failed_rename_leaves_nothing_beside(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]
