"""What ``pytest bench/`` times beside our kernels, and what pytest-benchmark gets of it.

Plain PyTorch is as strong as it can be, and floors read as much as the cell does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.candidates import Eager, OneProduct, products, step, thin_products
from dcrnn_fast import SharingPlan
from dcrnn_fast.ops import backends

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_one_product_for_both_gate_vectors_gives_the_same_numbers(cell, tied, rank):
    plan = SharingPlan.from_ratio("rows", 2, 7, 0.5, steps=3, rank=rank, cell=cell, tied=tied)
    plain, peer = (kind(plan, dtype=torch.float64) for kind in (Eager, OneProduct))
    peer.load_state_dict(plain.state_dict())
    x0, seed = torch.randn(4, 7, dtype=torch.float64), torch.randn(2, 4, 7, dtype=torch.float64)
    for got, right in zip(step(peer, x0, seed), step(plain, x0, seed), strict=True):
        torch.testing.assert_close(got, right)


@pytest.mark.parametrize("cell", ["gated", "cross"])
def test_a_step_of_it_is_one_product(cell):
    peer = OneProduct(SharingPlan.from_ratio("rows", 2, 7, 0.5, steps=3, cell=cell))
    with torch.profiler.profile() as profile, torch.no_grad():
        peer(torch.randn(4, 7))
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::baddbmm") == 3


class Operands(torch.utils._python_dispatch.TorchDispatchMode):
    """The memory that the products under it read."""

    def __init__(self):
        super().__init__()
        self.read = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.mm.out:
            self.read.append([operand.data_ptr() for operand in args])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("floor", "forward", "all_products"), [(products, (5, 4), 14), (thin_products, (5, 3, 4), 40)])
def test_no_two_forward_products_of_a_gpus_floor_read_the_same_rows(floor, forward, all_products, own):
    sizes = {"tasks": 2, "gates": 2, "steps": 3, "dtype": torch.float32, "device": "cpu", "own": own}
    with Operands() as found:
        floor(*forward, training=False, **sizes)()
    assert (len({rows for rows, _ in found.read}) == len(found.read)) == own
    with Operands() as found:
        floor(*forward, training=True, **sizes)()
    assert len(found.read) == all_products


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
    (row,) = json.loads((tmp_path / "benchmarks_cpu.json").read_text())["param_gather"]["rows"]
    (found,) = json.loads((tmp_path / "benchmark.json").read_text())["benchmarks"]
    assert found["extra_info"] == {"candidate": "cpp", **row}
    assert found["stats"]["rounds"] == row["rounds"] >= 7
    assert "our time or memory over a peer's" in printed
    assert "benchmark 'param_gather': 1 tests" in printed
    assert len(list((tmp_path / "saved").rglob("0001_before.json"))) == 1
