"""Folders in which a normal user may not write: runs, caches and packed data are read there, and what would write says so in one line."""

import shutil

import pytest

from tests.cli.forked.commands import Job


def protect(folder):
    """Take away the right to write in a folder and all below it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def protected(table, tmp_path):
    """A folder in which nothing may be written: two runs, their data in a cache and as a packed folder, and an empty folder."""
    folder = shutil.copytree(table, tmp_path / "protected")
    (folder / "empty").mkdir()
    shutil.copytree(table / "run", folder / "unfinished")
    (folder / "unfinished" / "metrics.json").unlink()
    shutil.copytree(next((table / "cache").glob("tiny-*")), folder / "packed")
    protect(folder)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture
def run_as_user(commands, protected, tmp_path):
    """Runs a command as a normal user. In it, {here} is the protected folder and {new} one to write into; so is the cache, by default."""
    (tmp_path / "new").mkdir()

    def run(line, cache="{new}/cache"):
        names = {"here": protected, "new": tmp_path / "new"}
        environment = {"DCRNN_FAST_CACHE": cache.format(**names)}
        before = {path: path.stat().st_mtime_ns for path in protected.rglob("*")}
        (ended,) = commands(Job(line.format(**names).split(), user=True, environment=environment))
        assert {path: path.stat().st_mtime_ns for path in protected.rglob("*")} == before
        return ended

    return run


@pytest.mark.parametrize(
    ("line", "cache"),
    [
        ("predict --run {here}/run --backend reference --input {here}/tiny.csv --output {new}/scores.csv", "{new}/cache"),
        ("export --run {here}/run --backend reference --output {new}/shop.pt2", "{new}/cache"),
        ("evaluate --run {here}/run", "{here}/cache"),
        ("evaluate --run {here}/run --data {here}/packed --predictions {new}/predictions.parquet", "{here}/cache"),
        ("train --config {here}/run.yaml --output {new}/run", "{here}/cache"),
        ("train --resume --output {here}/run", "{here}/cache"),
        ("prepare --schema {here}/tiny.yaml --output {new}/packed", "{here}/cache"),
        ("inspect --data {here}/packed", "{here}/cache"),
        ("inspect --data {here}/tiny.yaml", "{here}/cache"),
    ],
)
def test_what_nobody_may_change_is_read(run_as_user, line, cache):
    ended = run_as_user(line, cache)
    assert ended.code == 0, ended


REFUSED = {
    "train --config {here}/run.yaml --output {here}/empty/run": "cannot write {here}/empty/run: Permission denied; no permission to write",
    "train --config {here}/run.yaml --output {here}/empty": "cannot write {here}/empty: Permission denied; no permission to write there; ",
    "train --resume --quiet --output {here}/unfinished": "cannot write {here}/unfinished: Permission denied; no permission to write",
    "prepare --schema {here}/tiny.yaml --output {here}/empty/packed": "packed data cannot be written to {here}/empty/packed: ",
    "calibrate --run {here}/run": "cannot write {here}/run/calibration.json: Permission denied; no permission to write there; ",
    "export --run {here}/run --backend reference --output {here}/empty/s.pt2": "output {here}/empty/s.pt2 cannot be written: ",
    "predict --run {here}/run --input {here}/tiny.csv --output {here}/empty/s.csv --quiet": "output {here}/empty/s.csv cannot be written: ",
    "evaluate --run {here}/run --predictions {here}/empty/p.parquet": "predictions {here}/empty/p.parquet cannot be written: ",
    "evaluate --run {here}/run --plot {here}/empty/p.svg": "plot {here}/empty/p.svg cannot be written: ",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_would_be_written_there_is_refused_in_one_line(run_as_user, protected, line):
    ended = run_as_user(line)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended
    assert ended.err.startswith(f"error: {REFUSED[line].format(here=protected)}"), ended.err


def test_a_cache_that_cannot_be_written_is_named_in_one_line(run_as_user, protected):
    ended = run_as_user("inspect --data {here}/tiny.yaml", "{here}/empty")
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended
    assert ended.err.startswith(f"error: packed data cannot be written to {protected}/empty/tiny-"), ended.err
    assert ended.err.endswith("choose another folder (of the cache: DCRNN_FAST_CACHE)\n"), ended.err
