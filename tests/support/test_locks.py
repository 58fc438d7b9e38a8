"""Locks between processes: one holder, and none that has died."""

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
