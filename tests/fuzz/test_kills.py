"""Training that is killed at random moments, with a second writer beside it, ends with the bits of a run that nobody disturbed."""

import fcntl
import os
import random
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from dcrnn_fast.errors import DcrnnFastError
from dcrnn_fast.training import load_config, train
from tests.fuzz import campaign
from tests.processes import forks
from tests.training.runs import each_step, outcome
from tests.training.tiny import tiny_values, write_table

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
        train(load_config(None, values), Path(place, "run"), resume=True, report=each_step(lambda step: at(f"step {step}")))
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


WAYS = ["kill", "wait", "race"]
"""A writer is killed; or it stands still until a second one has tried, and is killed then; or it runs beside a second one, and both are."""


class Writers:
    """Processes that write one run; forked from a process that has imported everything, they start in no time."""

    def __init__(self, values, place):
        self.values, self.place = values, place
        self.context = forks()

    def start(self, stop=0, wait=False):
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=write_run, args=(self.values, str(self.place), stop, wait, theirs))
        process.start()
        theirs.close()
        return process, ours

    def end(self, writer):
        """What a writer says at its end: ("killed",) if it says nothing and was."""
        process, pipe = writer
        try:
            said = pipe.recv() if pipe.poll(120) else ("hangs",)
        except EOFError:
            said = ("killed",)
        if said[0] in ("hangs", "waits"):
            process.kill()
        process.join()
        if said[0] in ("killed", "waits", "hangs"):
            return said if process.exitcode == -signal.SIGKILL else ("crashed", process.exitcode)
        return said if process.exitcode == 0 else (*said, process.exitcode)


def disturb(writers, rng, way, most):
    """Start one writer or two, with kills in one of the ways, at event ``most`` or before; returns what happened, in words and as ends."""
    stop, other = rng.randint(1, most), rng.randint(1, most)
    if way == "kill":
        return way, stop, [writers.end(writers.start(stop))]
    if way == "race":
        both = [writers.start(stop), writers.start(other)]
        return way, (stop, other), [writers.end(writer) for writer in both]
    first = process, pipe = writers.start(stop, wait=True)
    if not pipe.poll(120) or (said := pipe.recv())[0] != "waits":
        process.join()
        return way, stop, [said]
    second = writers.end(writers.start())
    process.kill()
    process.join()
    pipe.close()
    del first
    return way, stop, [said, second]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The values of a run, its folder, and its number of events."""
    place = tmp_path_factory.mktemp("undisturbed")
    values = tiny_values(write_table(place / "table"))
    writers = Writers(values, place)
    said = writers.end(writers.start())
    assert said[0] == "finished", said
    return values, place / "run", said[1]


def test_runs_with_killed_and_second_writers_end_with_undisturbed_bits(undisturbed, tmp_path, record_property):
    values, whole, events = undisturbed
    expected, counts = outcome(whole), Counter()

    def judge(case):
        rng, place, story = random.Random(case["seed"]), tmp_path / str(case["seed"]), [case]
        place.mkdir()
        writers = Writers(values, place)
        refusal = f"another run writes to {place / 'run'} now; "
        most = events // rng.choice([1, 3])  # a writer that is killed early leaves more to the next ones
        for way in rng.sample(WAYS, 3) + rng.choices(["kill", *WAYS], k=rng.randint(0, 2)):
            way, stop, ends = disturb(writers, rng, way, most)
            story.append((way, stop, ends))
            for said in ends:
                assert said[0] in ("killed", "waits", "finished") or (said[0] == "refused" and said[1].startswith(refusal)), story
            if ends[0][0] == "waits":
                assert (ends[1][0] == "refused") == ends[0][2], story
            counts.update(said[0] for said in ends)
        story.append(writers.end(writers.start()))
        assert story[-1][0] == "finished", story
        assert outcome(place / "run") == expected, story
        left = [path for path in place.rglob(".*") if path.suffix != ".lock" and path.name != ".lock"]
        assert not left, (left, story)

    said = campaign.run("test_kills", lambda rng: {"seed": rng.getrandbits(32)}, judge, 0.01)
    record_property("fuzz", f"{said}, {dict(counts)}")
    assert counts["killed"] + counts["waits"]
    assert counts["refused"], "no second writer met a first one"
