"""A process that is killed while it makes or deletes its temporary folder leaves nothing that stays for ever."""

import shutil

import pytest

from dcrnn_fast.support import files
from dcrnn_fast.support.files import IN_USE, SCRATCH, scratch_folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_that_its_process_had_no_time_to_lock_is_deleted(temporary):
    (temporary / f"{SCRATCH}left").mkdir()
    with scratch_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_a_folder_of_a_user_without_a_lock_stays_with_what_it_holds(temporary):
    (own := temporary / f"{SCRATCH}own").mkdir()
    (own / "notes.txt").write_text("mine")
    with scratch_folder():
        pass
    assert (own / "notes.txt").read_text() == "mine"


def test_the_lock_is_deleted_last_so_that_a_killed_deletion_goes_on(temporary, monkeypatch):
    seen = []

    def delete(folder, *, real=shutil.rmtree, **options):
        seen.append((folder.name, sorted(path.name for path in folder.iterdir())))
        return real(folder, **options)

    monkeypatch.setattr(files.shutil, "rmtree", delete)
    with scratch_folder() as folder:
        (folder / "staging").mkdir()
        (folder / "staging" / "rows").write_bytes(b"1")
        (folder / "model.pt2").write_bytes(b"weights")
    assert seen == [("staging", ["rows"]), (folder.name, [IN_USE])]
    assert not list(temporary.iterdir())
