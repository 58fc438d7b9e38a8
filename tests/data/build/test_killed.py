"""A killed `prepare` leaves nothing that a later one could take for whole."""

import signal
import subprocess
import sys

import pytest

from dcrnn_fast.data import prepare, prepare_folder

KILLED = """
import os, signal, sys
from dcrnn_fast.data import prepare
def progress(name, done, total):
    if name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(sys.argv[1], cache_dir=sys.argv[2], progress=progress)
"""


@pytest.fixture
def visits(table):
    """Two files of ten rows, with texts, numbers and a time."""
    for part in range(2):
        rows = [(f"c{part}-{n % 3}", part + n, f"2024-01-{10 * part + n + 1:02}", n % 2) for n in range(10)]
        table.write(f"part-{part}.csv", "city,price,day,click", rows)
    return table.save(files={"all": "part-*.csv"}, split={"time": "day", "test": 0.2, "valid": 0.2}, group="city")


@pytest.mark.parametrize("what", ["reading rows", "learning columns", "encoding rows"])
def test_after_a_kill_prepare_ends_with_the_same_bytes_and_leaves_nothing(visits, what, tmp_path):
    cache = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(visits), str(cache), what], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    entry = prepare(visits, cache_dir=cache).path
    whole = prepare_folder(visits, tmp_path / "whole").path
    assert {file.name: file.read_bytes() for file in entry.iterdir()} == {file.name: file.read_bytes() for file in whole.iterdir()}
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [entry.name], "folders in the cache"
