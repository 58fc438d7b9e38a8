"""A process that is killed leaves its temporary folder to the next one, which deletes it; a living one's stays."""

import pytest

from dcrnn_fast.support import files
from dcrnn_fast.support.files import LOCK, SCRATCH, scratch_folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_deleted_and_what_is_in_use_or_a_users_is_not(temporary):
    left, own = temporary / f"{SCRATCH}left", temporary / f"{SCRATCH}own"
    for folder in (left, own):
        folder.mkdir()
        (folder / "model.pt2").write_bytes(b"weights")
    (temporary / f"{SCRATCH}left{LOCK}").touch()
    with scratch_folder() as first, scratch_folder() as second:
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
    assert list(temporary.iterdir()) == [own]
    assert (own / "model.pt2").exists()
