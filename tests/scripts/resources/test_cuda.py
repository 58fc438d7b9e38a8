"""scripts.resources cuda: what it reports on the CUDA kernels and on planted defects, and what it does without nvcc."""

import re

import pytest

from ..conftest import ROOT


@pytest.fixture
def check(script, resources, tmp_path):
    """The exit code, the output and the result for some files on sm_90."""
    if script("resources.cuda_compile").find_nvcc() is None:
        pytest.skip("nvcc was not found")
    return lambda *options: resources("cuda", tmp_path / "found.json", "--archs", "90", *options)


@pytest.fixture
def spoiled(check, planted):
    """The same for a copy of the sources with a defect."""

    def run(file, right, wrong, only="param_gather"):
        return check("--sources", str(planted(ROOT / "csrc", file, right, wrong)), "--only", only)

    return run


def test_every_instance_is_reported(check):
    code, words, content = check("--only", "param_gather")
    assert (code, [file["failures"] for file in content["files"]]) == (0, [[]]), words
    assert set(content["versions"]) == {"nvcc"}
    rows = content["rows"]
    assert {row["kind"] for row in rows if row["kernel"] == "param_gather"} == {"2 bytes", "4 bytes", "8 bytes", "16 bytes"}
    sums = {(row["from"], row["kind"]) for row in rows if row["kernel"] == "param_gather_sum"}
    assert sums == {(kind, kind) for kind in ("bfloat16", "float16", "float32", "float64")} | {
        ("float32", "bfloat16"), ("float32", "float16")
    }  # fmt: skip
    for row in rows:
        assert (row["arch"], row["stack"], row["spill_stores"], row["spill_loads"], row["failures"]) == ("sm_90", 0, 0, 0, [])
        assert 0 < row["registers"] < 255
        assert row["occupancy"] == pytest.approx(100 * row["blocks"] * row["warps"] / 64, abs=0.1)


def test_a_spill_is_reported(spoiled):
    code, words, content = spoiled("cuda/param_gather_kernels.h", r"sum_blocks_at_once = \d+", "sum_blocks_at_once = 16")
    assert code == 1
    spilled = [row for row in content["rows"] if row["spill_stores"]]
    assert {row["kernel"] for row in spilled} == {"param_gather_sum"}
    assert all(re.match("spills: .* bytes stored", row["failures"][0]) for row in spilled)
    assert len(re.findall("FAILED: param_gather_sum .*spills", words)) == len(spilled)


def test_a_kernel_that_does_not_compile_is_reported(spoiled):
    code, words, content = spoiled("cuda/param_gather_kernels.h", r"\Z", "using Broken = no_such_word;\n")
    assert (code, content["rows"]) == (1, [])
    assert "does not compile" in content["files"][0]["failures"][0]
    assert "no_such_word" in content["files"][0]["failures"][0]
    assert "FAILED: csrc/cuda/param_gather.cu sm_90: does not compile" in words


def test_a_binding_that_does_not_compile_is_reported(spoiled):
    code, _, content = spoiled("cuda/param_gather_op.cpp", r"\A", '#include "no_such_file.h"\n', only="param_gather_op")
    assert (code, content["files"][0]["arch"]) == (1, "host")
    assert "no_such_file.h" in content["files"][0]["failures"][0]


def test_a_recorded_result_stands_until_a_source_changes(check, planted):
    assert check("--only", "param_gather")[0] == 0
    code, words, content = check("--only", "param_gather", "--recorded")
    rows = len(content["rows"])
    assert (code, f"{rows} of {rows} recorded rows compiled again, 0 not as recorded" in words) == (0, True)
    changed = planted(ROOT / "csrc", "cuda/param_gather_kernels.h", r"\Z", "// changed\n")
    code, words, _ = check("--only", "param_gather", "--recorded", "--sources", str(changed))
    assert (code, "compiling all" in words) == (0, True)


def test_a_kernel_that_the_script_does_not_know_is_reported(spoiled):
    code, _, content = spoiled("cuda/param_gather.cu", r"\Z", "__global__ void unknown_kernel() {}\n")
    assert code == 1
    (row,) = (row for row in content["rows"] if row["failures"])
    assert row["kernel"] == "unknown_kernel()"
    assert "is not known" in row["failures"][0]


def test_what_a_card_does_not_grant_is_a_failure(script):
    failures = script("resources.cuda_report").failures
    usage = {"registers": 64, "stack": 0, "spill_stores": 0, "spill_loads": 0, "static_shared": 24}
    shape = {"warps": 8, "dynamic_shared": 232448 - 24}
    assert failures(90, shape, usage) == []
    assert "shared memory" in failures(90, {**shape, "dynamic_shared": 232449 - 24}, usage)[0]
    assert "shared memory" in failures(120, shape, usage)[0]
    assert failures(120, {**shape, "least_shared": 1000}, usage) == []  # all steps are launched where they fit
    assert "registers" in failures(90, {"warps": 32, "dynamic_shared": 0}, {**usage, "registers": 72})[0]
    assert "stack" in failures(90, shape, {**usage, "stack": 8})[0]


def test_a_report_of_another_form_is_a_failure(script):
    compiled = script("resources.cuda_compile").Compiled(
        "csrc/cuda/param_gather.cu", 90, "ptxas info : Compiling entry function 'f' for 'sm_90'\n", False
    )
    assert "not understood" in compiled.failures()[0]


def test_without_nvcc_nothing_is_checked(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(script("resources.cuda_compile"), "TOOLKIT", tmp_path)
    assert script("resources.__main__").main(["cuda", "--output", str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out == ("cuda-check: skipped: nvcc was not found; install the CUDA toolkit, or name it in CUDA_HOME\n")
    assert not list(tmp_path.iterdir())
