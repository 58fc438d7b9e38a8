"""A killed `prepare` goes on behind the input files that it has read whole, and ends with the bytes of one that nobody killed."""

import os
import signal
import subprocess
import sys

import pytest

from dcrnn_fast.data import join_packed, open_packed, prepare_folder
from dcrnn_fast.data.build import journal
from dcrnn_fast.data.build.journal import FILE, Journal
from dcrnn_fast.data.packed.folders import STAGING
from dcrnn_fast.data.schema.table import load_schema

pytestmark = pytest.mark.skipif(not journal.MACHINE_START.is_file(), reason="the system does not say when the machine was started")
KILLED = """
import os, signal, sys
from dcrnn_fast.data import prepare, prepare_folder
schema, output, cache, what, least = sys.argv[1:]
first = None
def progress(name, done, total):
    global first
    if first is None:
        first = print(done, flush=True) or done
    if name == what and done >= int(least):
        os.kill(os.getpid(), signal.SIGKILL)
if cache:
    prepare(schema, cache_dir=cache, progress=progress)
else:
    prepare_folder(schema, output, progress=progress)
"""


def run(schema, output, what="", least=0, cache="", told=True):
    """Prepare in a process of its own, which kills itself there. How many rows it had when it first told, if so, and its exit status."""
    command = [sys.executable, "-c", KILLED, str(schema), str(output), str(cache), what, str(least)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return int(done.stdout) if told else None, done.returncode


@pytest.fixture
def visits(table):
    """Five files of ten rows, one of which is rejected, with texts, numbers and a time; the first price of each file is missing."""
    for part in range(5):
        rows = [(f"c{part}-{n % 3}", "" if n == 0 else part + n, f"2024-01-{10 * (part % 2) + n + 1:02}", n % 2) for n in range(10)]
        rows[4] = (*rows[4][:1], "dear", *rows[4][2:])
        table.write(f"part-{part}.csv", "city,price,day,click", rows)
    return table.save(files={"all": "part-*.csv"}, split={"time": "day", "test": 0.2, "valid": 0.2}, max_rejects=5, group="city")


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def leftovers(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_a_killed_prepare_ends_with_the_same_bytes_and_reads_no_file_twice(visits, tmp_path):
    whole = prepare_folder(visits, tmp_path / "whole").path
    output = tmp_path / "killed"
    kills = [("reading rows", 27), ("reading rows", 28), ("learning columns", 1), ("encoding rows", 9)]
    firsts = [run(visits, output, *kill)[0] for kill in kills]
    assert firsts == [9, 9 * 2, 9 * 3, 9 * 5], "the rows of the files that were whole when the call before was killed"
    assert len(leftovers(tmp_path)) == 1
    assert run(visits, output) == (9 * 5, 0)
    assert content(output) == content(whole)
    assert not leftovers(tmp_path)


def test_a_cache_entry_goes_on_too(visits, tmp_path):
    cache = tmp_path / "cache"
    assert run(visits, "", "encoding rows", 0, cache) == (9, -signal.SIGKILL)
    assert run(visits, "", cache=cache) == (45, 0)
    (entry,) = [path for path in cache.iterdir() if path.is_dir()]
    assert content(entry) == content(prepare_folder(visits, tmp_path / "whole").path)


def test_a_file_that_changed_since_is_read_again(visits, tmp_path, table):
    run(visits, tmp_path / "killed", "learning columns")
    table.write("part-0.csv", "city,price,day,click", [("new", n, f"2024-01-{n + 1:02}", n % 2) for n in range(10)])
    assert run(visits, tmp_path / "killed")[0] == 10
    assert open_packed(tmp_path / "killed").meta.digest == prepare_folder(visits, tmp_path / "whole").meta.digest


def test_what_a_killed_call_left_goes_with_the_entry_that_another_one_made(visits, tmp_path, table):
    cache = tmp_path / "cache"
    run(visits, "", "encoding rows", 0, cache)
    (left,) = leftovers(cache)
    assert run(visits, "", cache=cache)[1] == 0
    (cache / left.name).mkdir()
    assert run(visits, "", cache=cache, told=False)[1] == 0
    assert not leftovers(cache)


def test_a_joined_folder_takes_over_no_rows(visits, tmp_path):
    part = prepare_folder(visits, tmp_path / "part").path
    run(visits, tmp_path / "week", "learning columns")
    assert STAGING not in content(join_packed([part], tmp_path / "week").path)
    assert not leftovers(tmp_path)


@pytest.fixture
def begun(visits, tmp_path):
    """The folder of a killed call that has read all files, and a function that opens its journal: how many files it need not read."""
    run(visits, tmp_path / "killed", "learning columns")
    (left,) = leftovers(tmp_path)
    schema = load_schema(visits)
    paths = {"all": tuple(sorted(tmp_path.glob("part-*.csv")))}
    return left / STAGING, lambda: len(Journal(left / STAGING, schema, paths).records)


def test_a_line_that_was_half_written_does_not_count(begun):
    folder, files_read = begun
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-2])
    assert [files_read(), files_read()] == [4, 4]


@pytest.mark.parametrize("damage", ["a line", "all lines", "no record", "a column", "a link", "another start", "no start", "another table"])
def test_what_may_be_damaged_or_is_of_something_else_is_not_used(begun, damage, monkeypatch, tmp_path):
    folder, files_read = begun
    if damage == "a line":
        first, second, *lines = (folder / FILE).read_text().splitlines(keepends=True)
        (folder / FILE).write_text("".join([first, second[1:], *lines]))
    elif damage == "all lines":  # as a file system may leave a file after a power failure
        (folder / FILE).write_bytes(bytes(200))
    elif damage == "no record":
        (folder / FILE).write_text((folder / FILE).read_text() + "5\n")
    elif damage == "a column":
        os.truncate(next(folder.glob("numbers-*")), 8)
    elif damage == "a link":
        column = next(folder.glob("numbers-*"))
        column.rename(tmp_path / "somebody's")
        column.symlink_to(tmp_path / "somebody's")
    elif "start" in damage:
        if damage == "another start":
            (tmp_path / "start").write_text("another")
        monkeypatch.setattr(journal, "MACHINE_START", tmp_path / "start")
    else:
        os.utime(tmp_path / "part-3.csv")
    assert files_read() == 0
    if damage == "no start":
        return
    assert [path.name for path in folder.iterdir()] == [FILE]
    if damage == "a link":
        assert (tmp_path / "somebody's").stat().st_size == 45 * 8
