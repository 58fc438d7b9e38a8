"""An installation compiles against the PyTorch that is installed; pip builds where it hides what is installed."""

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.path += sys.argv[1:3]
sys.executable = sys.argv[3]
from importlib.util import find_spec
import build_backend
print(*build_backend.TORCH, "found" if find_spec("torch") else "hidden")
"""


@pytest.fixture
def said(tmp_path):
    """What the backend asks pip for, and whether PyTorch can be imported then, by the Python that it asks."""
    (tmp_path / "seen").mkdir()
    for name in ("setuptools", "_distutils_hack"):
        (tmp_path / "seen" / name).symlink_to(Path(setuptools.__file__).parents[1] / name)

    def run(python):
        command = [sys.executable, "-S", "-c", PROGRAM, str(tmp_path / "seen"), str(ROOT / "scripts"), str(python)]
        environment = {**os.environ, "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    return run


def test_it_takes_the_installed_pytorch_and_asks_for_one_where_none_is(said):
    assert said(sys.executable) == "found"
    assert said("/bin/false") == "torch>=2.10 numpy hidden"


def test_it_asks_for_another_pytorch_where_the_installed_one_is_too_old(said, tmp_path):
    (old := tmp_path / "old").write_text(f"#!/bin/sh\necho 2.9.1+cu128\necho {Path(setuptools.__file__).parents[1]}")
    old.chmod(0o755)
    assert said(old) == "torch>=2.10 numpy hidden"


def test_an_editable_installation_is_a_path_that_editors_follow():
    installed = distribution("dcrnn_fast")
    if not str(installed.read_text("direct_url.json")).count('"editable": true'):
        pytest.skip("not an editable installation")
    paths = [file.read_text().strip() for file in installed.files or () if file.suffix == ".pth"]
    assert paths == [str(ROOT)]
