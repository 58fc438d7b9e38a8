"""The Triton kernels compiled without a GPU: every configuration fits every card, spills nothing, and uses its tensor cores."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"bfloat16", "float16", "tf32", "float32", "float64"}
TENSOR_CORES = {"bfloat16", "float16", "tf32"}


def run(output, *options):
    """scripts/triton_resources.py in a process of its own, where TRITON_INTERPRET, set for this one, does not count."""
    command = [sys.executable, str(ROOT / "scripts" / "triton_resources.py"), "--output", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.is_file(), f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done, json.loads(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def resources(tmp_path_factory):
    """One run for all tests: where they are spread over processes, the first one's."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    output = folder / "triton_resources.json"
    with FileLock(folder / "triton_resources.lock"):
        return json.loads(output.read_text(encoding="utf-8")) if output.is_file() else run(output)[1]


def failed(rows, *words):
    """The failures that hold one of the words, with what names their rows."""
    shown = ("kernel", "kind", "arch", "tile", "warps", "stages", "variant")
    found = [(row, failure) for row in rows for failure in row["failures"]]
    return [(*(row.get(name) for name in shown), failure) for row, failure in found if any(word in failure for word in words)]


def test_every_configuration_compiles(resources):
    assert not failed(resources["rows"], "compile")


def test_every_variant_that_a_launch_may_ask_for_compiles(resources):
    assert not failed(resources["variants"], "compile")


def test_nothing_spills(resources):
    assert not failed(resources["rows"] + resources["variants"], "spills")


def test_shared_memory_is_within_the_limit_and_the_estimate(resources):
    assert not failed(resources["rows"], "shared memory")


def test_half_precision_and_tf32_use_tensor_cores(resources):
    assert not failed(resources["rows"], "has no")


def test_operands_are_loaded_sixteen_bytes_at_a_time(resources):
    assert not failed(resources["rows"], "asynchronous")


def test_no_other_check_fails(resources):
    assert not failed(resources["rows"] + resources["variants"], "")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "sm_120"])
def test_every_kernel_has_a_configuration_for_every_card(resources, arch):
    compiled = {(row["kernel"], row["kind"]) for row in resources["rows"] if row["arch"] == arch}
    wanted = {(kernel, kind) for kernel in ("step", "all_steps", "backward", "context", "start") for kind in KINDS}
    assert compiled >= {(kernel, kind) for kernel, kind in wanted if kind != "float16" or arch == "sm_90"}


def test_no_kernel_has_an_addition_that_fusion_would_change(resources):
    """Multiplications that feed an addition are written as fma, or kept apart from it."""
    assert resources["fusion"]
    for row in resources["fusion"]:
        additions = [{name: counts.get(name) for name in ("FFMA", "FADD", "DFMA", "DADD")} for counts in (row["without"], row["with"])]
        assert additions[0] == additions[1], row


def planted(tmp_path, file, right, wrong, *options):
    """The failures of a copy of the kernels in which a line is spoiled."""
    copy = tmp_path / "kernels"
    shutil.copytree(ROOT / "kernels", copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text(encoding="utf-8")
    assert re.search(right, text), f"{file} no longer has the line that a defect is planted in: {right}"
    (copy / file).write_text(re.sub(right, wrong, text, count=1), encoding="utf-8")
    done, content = run(tmp_path / "found.json", "--kernels", str(copy), "--archs", "90", "--rows-only", *options)
    assert done.returncode == bool(content["rows"] and failed(content["rows"], "")), done.stderr[-2000:]
    assert all(failure in done.stdout for *_, failure in failed(content["rows"], ""))
    return content["rows"]


def test_a_configuration_that_spills_is_reported(tmp_path):
    rows = planted(tmp_path, "tile_table.py", r'"step": \[\(32, 32, 16, 4, 3\)\]', '"step": [(64, 64, 16, 4, 3)]',
                   "--names", "step", "--kinds", "float64")  # fmt: skip
    assert failed(rows, "spills")


def test_a_tile_beyond_the_shared_memory_is_reported(tmp_path):
    rows = planted(tmp_path, "tile_table.py", r"return buffers\(.*?\) \* ", "return 1 + 0 * ", "--names", "step", "--kinds", "tf32")
    assert failed(rows, "tile_table.shared_bytes estimates 1")


def test_an_unaligned_load_is_reported(tmp_path):
    rows = planted(tmp_path, "tiles.py", r"(tl\.multiple_of\(.*), ALIGN\)", r"\1, 1)", "--names", "step", "--kinds", "tf32")
    assert failed(rows, "asynchronous loads of 16 bytes")


def test_a_product_without_tensor_cores_is_reported(tmp_path):
    rows = planted(tmp_path, "tiles.py", r"input_precision=PRECISION", 'input_precision="ieee"', "--names", "step", "--kinds", "tf32")
    assert failed(rows, "has no HGMMA")


def test_a_kernel_that_does_not_compile_is_reported(tmp_path):
    rows = planted(tmp_path, "tiles.py", r"return 1\.0 / \(1\.0 \+ tl\.exp\(-x\)\)", "return no_such_function(x)",
                   "--names", "step", "--kinds", "float64")  # fmt: skip
    assert failed(rows, "does not compile")
