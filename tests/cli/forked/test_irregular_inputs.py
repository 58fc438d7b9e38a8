"""A pipe or a device where a file is expected ends in one line that names it: nothing waits for a writer, or reads on for ever."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.forked.commands import Job

STEP = "checkpoints/step-00000008.safetensors"
SCORES = "--output {place}/scores.csv"
OF_A_RUN = {
    "model.safetensors": ("evaluate --run {run}", r"error: {path} is damaged or no safetensors file \(.*it is not a regular file"),
    "encoder.json": (
        "evaluate --run {run} --data {table}/tiny.yaml",
        r"error: {path} cannot be read \(.*it is not a regular file: .*; restore it, or go on with --resume",
    ),
    "calibration.json": (
        f"predict --run {{run}} --backend reference --input {{table}}/tiny.csv {SCORES}",
        r"error: {path} cannot be read \(.*it is not a regular file: .*; write it again with dcrnn-fast calibrate, or delete it",
    ),
    "config.yaml": ("evaluate --run {run}", r"error: {run} holds no run \(config\.yaml is missing\)"),
    STEP: ("train --quiet --resume --output {run}", r"error: {path} is damaged or no safetensors file \(.*it is not a regular file"),
}
GIVEN = {
    "table.csv": (
        f"predict --run {{run}} --backend reference --input {{path}} {SCORES}",
        r"error: the input file {path} is not a regular file",
    ),
    "table.csv.gz": (
        f"predict --run {{run}} --backend reference --input {{path}} {SCORES}",
        r"error: the input file {path} is not a regular file",
    ),
    "table.parquet": ("inspect --input {path}", r"error: the input file {path} is not a regular file"),
    "schema.yaml": ("prepare --schema {path} --output {place}/packed", r"error: unknown data set '{path}'"),
}


def replace(path, kind):
    """Put a pipe that nobody writes to, or a device that never ends, in the place of a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    return path


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no device that never ends")
@pytest.mark.parametrize("name", [*OF_A_RUN, *GIVEN])
def test_a_pipe_and_an_endless_device_are_refused_at_once_by_name(name, commands, table, tmp_path):
    words, said = (OF_A_RUN | GIVEN)[name]
    jobs, expected = [], []
    for kind in ("pipe", "device"):
        (place := tmp_path / kind).mkdir()
        names = {"run": table / "run", "table": table, "place": place, "path": place / name}
        if name in OF_A_RUN:
            names["run"] = shutil.copytree(table / "run", place / "run")
            (names["run"] / "metrics.json").unlink()  # there is something left to do for a run that is resumed
            names["path"] = names["run"] / name
        replace(names["path"], kind)
        expected.append(said.format(**{key: re.escape(str(path)) for key, path in names.items()}))
        jobs.append(Job(words.format(**names).split(), environment={"DCRNN_FAST_CACHE": str(table / "cache")}))
    for ended, line in zip(commands(*jobs), expected, strict=True):
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended
        assert re.match(line, ended.err), ended.err


@pytest.mark.parametrize("name", ["encoder.json", "metrics.json"])
def test_a_pipe_in_the_place_of_a_result_is_replaced_by_resuming(name, commands, table, run):
    replace(run / name, "pipe")
    (ended,) = commands(Job(["train", "--quiet", "--resume", "--output", run], environment={"DCRNN_FAST_CACHE": str(table / "cache")}))
    assert (ended.code, ended.err) == (0, ""), ended
    assert (run / "encoder.json").read_bytes() == (table / "run" / "encoder.json").read_bytes()
    assert (run / "metrics.json").is_file()
