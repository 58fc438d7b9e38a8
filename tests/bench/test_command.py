"""``pytest bench/``: what it measures, and what pytest-benchmark gets of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcrnn_fast.ops import backends

ROOT = Path(__file__).parents[2]


def run(*options):
    """The output of pytest on the quickest benchmark, that of param_gather."""
    command = [sys.executable, "-m", "pytest", "bench/test_param_gather.py", "-p", "no:cacheprovider", *options]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}  # in which nothing is timed
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="nothing to measure without the extension")
def test_pytest_benchmark_gets_our_candidate_with_the_ratios_to_its_peers(tmp_path):
    storage = f"--benchmark-storage=file://{tmp_path / 'saved'}"
    options = ("--benchmark", "--device", "cpu", "-k", "forward", "--seconds", "0", "--results", str(tmp_path), storage)
    printed = run(*options, f"--benchmark-json={tmp_path / 'benchmark.json'}", "--benchmark-save=before")
    (row,) = json.loads((tmp_path / "param_gather_cpu.json").read_text())["rows"]
    (found,) = json.loads((tmp_path / "benchmark.json").read_text())["benchmarks"]
    assert found["extra_info"] == {"candidate": "cpp", **row}
    assert found["stats"]["rounds"] == row["rounds"] >= 7
    assert "our time or memory over a peer's" in printed
    assert "benchmark 'param_gather': 1 tests" in printed
    assert len(list((tmp_path / "saved").rglob("0001_before.json"))) == 1
