"""A command that is killed at any moment leaves the old output or the whole new one, and the next one works and tidies up."""

import random
import shutil
import signal

import pytest

from dcrnn_fast.data import open_packed
from dcrnn_fast.support.files import SCRATCH
from tests.cli.forked.commands import Job

KILLS = 20
OLD = b"what stood there before"


def moment(rng, events):
    """The number of an event to be killed at. The last ones, in which files get their names, are drawn as often as all before them."""
    return events - int(events ** rng.random()) + 1


def whole(path):
    """The content of an output: None, that of a file, or of all files of a packed folder, which must open."""
    if not path.is_dir():
        return path.read_bytes() if path.exists() else None
    open_packed(path, verify=True)
    return {file.name: file.read_bytes() for file in path.iterdir()}


def put(path, content):
    """Let ``path`` hold ``content`` again, or nothing."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


COMMANDS = {
    "predict": ("--run {run} --backend reference --input {table}/tiny.csv --output {place}/scores.csv", "scores.csv"),
    "export": ("--run {run} --backend reference --output {place}/shop.pt2", "shop.pt2"),
    "calibrate": ("--run {run}", "run/calibration.json"),
    "prepare": ("--schema {table}/tiny.yaml --output {place}/packed", "packed"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_twenty_kills_leave_the_old_output_or_the_whole_new_one(name, commands, table, run, tmp_path):
    (scratch := tmp_path / "scratch").mkdir()
    options, written = COMMANDS[name]
    line = [name, *options.format(run=run, table=table, place=tmp_path).split()]
    job = {"words": line, "audited": name == "export", "environment": {"TMPDIR": str(scratch)}}
    (undisturbed,) = commands(Job(**job))
    assert undisturbed.code == 0, undisturbed
    output = tmp_path / written
    new, old = whole(output), None if name in ("prepare", "calibrate") else OLD
    rng, found, story = random.Random(name), [], []
    for _ in range(KILLS):
        put(output, old)
        stop = moment(rng, undisturbed.events)
        (killed,) = commands(Job(**job, stop=stop))
        story.append(f"event {stop:,} of {undisturbed.events:,}")
        assert killed.code == -signal.SIGKILL, (story, killed)
        found.append(whole(output))
        assert found[-1] in (old, new), f"half an output after the kills at {story}"
    assert old in found
    put(output, old)
    (after,) = commands(Job(**job))
    assert after.code == 0, (story, after)
    assert whole(output) == new, f"another output after the kills at {story}"
    left = [*scratch.glob(f"{SCRATCH}*"), *tmp_path.glob(".packed.*.tmp")]
    assert not left, f"what killed commands left stays, after kills at {story}"
