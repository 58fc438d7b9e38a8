"""Locks between processes: one holder, or several that share, and none that has died."""

import fcntl
import os
import signal

from dcrnn_fast.support.locks import locked


def test_a_lock_has_one_holder_until_it_is_released(tmp_path):
    with locked(tmp_path / "lock") as first:
        with locked(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        with locked(tmp_path / "lock") as third:
            assert not third
    with locked(tmp_path / "lock") as again:
        assert again


def test_sharing_holders_keep_only_those_out_that_do_not_share(tmp_path):
    with locked(tmp_path / "lock", shared=True) as one, locked(tmp_path / "lock", shared=True, wait=True) as two:
        assert (one, two) == (True, True)
        with locked(tmp_path / "lock") as alone:
            assert not alone


def test_who_opened_a_lock_before_its_holder_deleted_it_locks_the_new_file(tmp_path, monkeypatch):
    path, real = tmp_path / "lock", fcntl.flock

    def delete_first(descriptor, operation):
        monkeypatch.undo()
        path.unlink()
        real(descriptor, operation)

    path.touch()
    monkeypatch.setattr(fcntl, "flock", delete_first)
    with locked(path) as one, locked(path) as other:
        assert (one, other) == (True, False)


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
