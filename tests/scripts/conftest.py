"""The scripts as modules. Where the tests lie without the scripts, their tests are skipped."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
collect_ignore_glob = [] if (ROOT / "scripts" / "tree.py").is_file() else ["test_*.py"]


@pytest.fixture
def script():
    """Imports a script by its name in scripts/."""
    return lambda name: importlib.import_module(f"scripts.{name}")


@pytest.fixture
def sources(script, tmp_path, monkeypatch):
    """The root of a small tree of sources, which scripts/tree.py copies instead of this repository."""
    tree, root = script("tree"), tmp_path / "root"
    for name in tree.COPIED:
        if (ROOT / name).is_file():
            (root / name).write_text(name)
        else:  # a folder; in a copy that scripts/tree.py made, kernels/ lies elsewhere
            (root / name).mkdir(parents=True)
            (root / name / "one.py").write_text(name)
    monkeypatch.setattr(tree, "ROOT", root)
    return root


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
    command = [sys.executable, "-m", "tests.scripts.resources_in_forks"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(language, output, *options):
            process.stdin.write(json.dumps([language, "--output", str(output), *options]) + "\n")
            process.stdin.flush()
            code, printed = json.loads(process.stdout.readline())
            assert output.is_file(), printed[-4000:]
            return code, printed, json.loads(output.read_text(encoding="utf-8"))

        yield run
        process.stdin.close()
