"""Runs scripts.resources, on the sources or on a copy with a defect."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from ..conftest import ROOT


@pytest.fixture
def planted(tmp_path):
    """Copies a folder of sources, and replaces what a pattern matches first in one of its files. Returns the copy."""

    def plant(folder, file, right, wrong):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / file).read_text(encoding="utf-8")
        assert re.search(right, text), f"{file} must contain this, to plant a defect there: {right}"
        (copy / file).write_text(re.sub(right, wrong, text, count=1), encoding="utf-8")
        return copy

    return plant


@pytest.fixture(scope="module")
def resources():
    """Runs scripts.resources, and returns its exit code, its output and the result.

    It runs in forks of another process, where the TRITON_INTERPRET that the tests set does not count.
    """
    command = [sys.executable, "-m", "tests.scripts.resources.in_forks"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(language, output, *options):
            process.stdin.write(json.dumps([language, "--output", str(output), *options]) + "\n")
            process.stdin.flush()
            code, printed = json.loads(process.stdout.readline())
            assert output.is_file(), printed[-4000:]
            return code, printed, json.loads(output.read_text(encoding="utf-8"))

        yield run
        process.stdin.close()
