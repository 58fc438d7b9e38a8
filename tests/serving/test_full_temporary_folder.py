"""A temporary folder without room: `export` ends with one line, not with a signal."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dcrnn_fast.serving.export.archive import archive_file
from dcrnn_fast.serving.export.export import export, traced
from dcrnn_fast.support import files

MOUNT = "mount -t tmpfs -o size=$0 tmpfs $1"


def can_mount(folder):
    tried = ["unshare", "-Urm", "sh", "-c", MOUNT, "1m", folder]
    return shutil.which("unshare") and subprocess.run(tried, capture_output=True).returncode == 0


def test_export_says_that_there_is_no_room(shop, tmp_path):
    (full := tmp_path / "full").mkdir()
    if not can_mount(full):
        pytest.skip("this user cannot mount a file system in a namespace of its own")
    export_it = f"TMPDIR=$1 exec {sys.executable} -m dcrnn_fast export --run $2 --output $3"
    arguments = ["64k", full, shop / "run", tmp_path / "shop.pt2"]
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", f"{MOUNT} && {export_it}", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"the temporary folder {full} cannot be used: No space left on device" in done.stderr
    assert not (tmp_path / "shop.pt2").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_pytorchs_writer_does_not_end_the_process(ranker):
    program = traced(ranker.model)
    with pytest.raises(OSError, match="No space left"), archive_file(Path("/dev/full")) as file:
        torch.export.save(program, file)


def test_export_leaves_nothing_in_the_temporary_folder(shop, tmp_path, monkeypatch):
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(files.tempfile, "tempdir", str(scratch))
    export(shop / "run", tmp_path / "shop.pt2", backend="reference")
    assert not list(scratch.iterdir())
