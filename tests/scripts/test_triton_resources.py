"""resources.py triton: every tile configuration fits every GPU, spills nothing, uses its tensor cores; it finds planted defects."""

import json
import os

import pytest

pytest.importorskip("triton")
from filelock import FileLock

KINDS = {"bfloat16", "float16", "tf32", "float32", "float64"}


@pytest.fixture(scope="session")
def result(tmp_path_factory, resources):
    """One run for all tests: if they run in several processes, the first one's."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    output = folder / "triton_resources.json"
    with FileLock(folder / "triton_resources.lock"):
        return json.loads(output.read_text(encoding="utf-8")) if output.is_file() else resources("triton", output)[2]


def failed(rows, word):
    """The failures with this word, and what names their rows."""
    shown = ("kernel", "kind", "arch", "tile", "warps", "stages", "variant")
    return [(*(row.get(name) for name in shown), failure) for row in rows for failure in row["failures"] if word in failure]


def test_every_configuration_compiles(result):
    assert not failed(result["rows"], "compile")


def test_every_variant_that_a_launch_may_ask_for_compiles(result):
    assert not failed(result["variants"], "compile")


def test_nothing_spills(result):
    assert not failed(result["rows"] + result["variants"], "spills")


def test_shared_memory_is_within_the_limit_and_the_estimate(result):
    assert not failed(result["rows"], "shared memory")


def test_half_precision_and_tf32_use_tensor_cores(result):
    assert not failed(result["rows"], "has no")


def test_operands_are_loaded_sixteen_bytes_at_a_time(result):
    assert not failed(result["rows"], "asynchronous")


def test_no_other_check_fails(result):
    assert not failed(result["rows"] + result["variants"], "")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "sm_120"])
def test_every_kernel_has_a_configuration_for_every_card(result, arch):
    compiled = {(row["kernel"], row["kind"]) for row in result["rows"] if row["arch"] == arch}
    wanted = {(kernel, kind) for kernel in ("step", "all_steps", "backward", "context", "start") for kind in KINDS}
    assert compiled >= {(kernel, kind) for kernel, kind in wanted if kind != "float16" or arch == "sm_90"}


def test_the_fixed_blocks_are_those_of_the_launches(script):
    from dcrnn_fast.kernels import cross_rnn_backward_launch as backward
    from dcrnn_fast.kernels import param_gather_launch as gather

    assert script("triton_report").FIXED == {
        "start": {"BLOCK_D": backward.START_UNITS},
        "gather": {"BLOCK_R": gather.GATHER_VALUES // gather.GATHER_COLUMNS, "BLOCK_N": gather.GATHER_COLUMNS},
        "gather_sum": {"BLOCK_R": gather.SUM_ROWS, "BLOCK_N": gather.SUM_COLUMNS},
    }


def test_no_kernel_has_an_addition_that_fusion_would_change(result):
    """Multiplications that feed an addition are written as fma, or kept apart from it."""
    assert result["fusion"]
    for row in result["fusion"]:
        additions = [{name: counts.get(name) for name in ("FFMA", "FADD", "DFMA", "DADD")} for counts in (row["without"], row["with"])]
        assert additions[0] == additions[1], row


@pytest.fixture
def rows(script, planted, resources, tmp_path):
    """The rows of a copy of the kernels with a defect. Every failure must be printed, and must make the exit code 1."""

    def run(file, right, wrong, kind):
        copy, output = planted(script("sources").KERNELS, file, right, wrong), tmp_path / "found.json"
        options = ("--archs", "90", "--rows-only", "--names", "step", "--kinds", kind)
        code, words, content = resources("triton", output, "--kernels", str(copy), *options)
        assert code == bool(failed(content["rows"], ""))
        assert all(failure in words for *_, failure in failed(content["rows"], ""))
        return content["rows"]

    return run


def test_a_configuration_that_spills_is_reported(rows):
    right, wrong = r'"step": \[\(32, 32, 16, 4, 3\)\]', '"step": [(64, 64, 16, 4, 3)]'
    assert failed(rows("tile_table.py", right, wrong, "float64"), "spills")


def test_a_tile_beyond_the_shared_memory_is_reported(rows):
    found = rows("tile_table.py", r"return buffers\(kernel, config\) \* ", "return 1 + 0 * ", "tf32")
    assert failed(found, "tile_table.shared_bytes estimates 1")


def test_an_unaligned_load_is_reported(rows):
    found = rows("tiles.py", r"(tl\.multiple_of\(.*), ALIGN\)", r"\1, 1)", "tf32")
    assert failed(found, "asynchronous loads of 16 bytes")


def test_a_product_without_tensor_cores_is_reported(rows):
    assert failed(rows("tiles.py", r"input_precision=PRECISION", 'input_precision="ieee"', "tf32"), "has no HGMMA")


def test_a_kernel_that_does_not_compile_is_reported(rows):
    right = r"return 1\.0 / \(1\.0 \+ tl\.exp\(-x\)\)"
    assert failed(rows("tiles.py", right, "return no_such_function(x)", "float64"), "does not compile")
