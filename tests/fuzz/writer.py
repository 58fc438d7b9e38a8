"""A training process that is killed, or that waits, at a chosen event: a training step, or an access to the files of its run or cache."""

import fcntl
import os
import signal
import sys
import threading
from pathlib import Path

from dcrnn_fast.errors import DcrnnFastError
from dcrnn_fast.training import load_config, train
from tests.training.ranks import late_imports  # noqa: F401

EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir")


def write_run(values, place, stop, wait, pipe):
    """Resume the run in ``place``/run, or start it. At event number ``stop``, kill this process, or with ``wait`` stand still.

    Sends ("waits", event, whether it holds a lock), ("refused", message) or ("finished", number of events).
    """
    os.environ["DCRNN_FAST_CACHE"] = str(Path(place, "cache"))
    count = 0

    def at(event):
        nonlocal count
        count += 1
        if count == stop and wait:
            pipe.send(("waits", event, _is_locked(Path(place, "run", ".lock"))))
            signal.pause()
        elif count == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event, arguments):
        if event not in EVENTS or threading.current_thread() is not threading.main_thread():
            return
        path = arguments[0]
        if isinstance(path, (str, Path)) and (str(path).startswith(place) or (event == "os.remove" and os.sep not in str(path))):
            at(f"{event} {path}")

    sys.addaudithook(watch)
    try:
        train(load_config(None, values), Path(place, "run"), resume=True, on_step=lambda step: at(f"step {step}"))
    except DcrnnFastError as error:
        pipe.send(("refused", str(error)))
    else:
        pipe.send(("finished", count))


def _is_locked(path):
    """Whether this process, the only one so far, holds the lock."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
