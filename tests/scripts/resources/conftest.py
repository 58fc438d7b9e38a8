"""Runs scripts.resources on a copy of the sources with a defect."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def spoiled(tmp_path):
    """Replaces what a pattern matches first in a file of a copy of a folder. Returns the exit code, the output and the result."""

    def run(language, folder, file, right, wrong, only):
        copy, found = tmp_path / "copy", tmp_path / "found.json"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / file).read_text(encoding="utf-8")
        assert re.search(right, text), f"{file} must contain this, to plant a defect there: {right}"
        (copy / file).write_text(re.sub(right, wrong, text, count=1), encoding="utf-8")
        command = [sys.executable, "-m", "scripts.resources", language, "--sources", str(copy), "--output", str(found), "--archs", "90"]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        done = subprocess.run([*command, "--only", only], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert found.is_file(), done.stderr[-4000:]
        return done.returncode, done.stdout, json.loads(found.read_text(encoding="utf-8"))

    return run
