"""Locks between processes: one holder, or several that share, and none that has died."""

import os
import signal
import subprocess
import sys

from dcrnn_fast.locks import locked


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


HOLDER = """
import os, sys
from pathlib import Path
from dcrnn_fast.locks import locked

with locked(Path(sys.argv[1])) as mine:
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    print("holds it" if mine else "does not", flush=True)
    os.wait()
"""


def test_a_killed_holder_leaves_no_lock_even_if_a_forked_child_lives_on(tmp_path):
    command = [sys.executable, "-c", HOLDER, tmp_path / "lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "holds it\n"
        with locked(tmp_path / "lock") as mine:
            assert not mine
        os.kill(holder.pid, signal.SIGKILL)
        assert holder.wait() == -signal.SIGKILL
        with locked(tmp_path / "lock") as mine:
            assert mine, "the forked child, which waits for its input to end, still holds the lock"
