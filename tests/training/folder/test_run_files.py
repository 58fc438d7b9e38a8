import errno
import os

import pytest

from dcrnn_fast.errors import RunFolderError
from dcrnn_fast.support import files
from dcrnn_fast.training.folder.run_files import write_file, write_json


def test_a_full_disk_is_a_run_folder_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_file(path, b"old")

    def sync(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", sync)
    with pytest.raises(RunFolderError, match=r"metrics\.json: No space left on device; the disk is full"):
        write_file(path, b"new")
    assert (os.listdir(tmp_path), path.read_bytes()) == (["metrics.json"], b"old")
    with pytest.raises(RunFolderError, match="the disk is full; free some space and calibrate again"):
        write_json(path, {}, "calibrate again")


def test_json_files_refuse_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auc": float("nan")})
    assert os.listdir(tmp_path) == []
