"""scripts.resources cuda: what it reports on the CUDA kernels and on planted defects, and what it does without nvcc."""

import re

import pytest

from ..conftest import ROOT


@pytest.fixture
def check(script, resources, tmp_path):
    """The exit code, the output and the result for some files on sm_90."""
    if script("resources.cuda_report").find_nvcc() is None:
        pytest.skip("nvcc was not found")
    return lambda *options: resources("cuda", tmp_path / "found.json", "--archs", "90", *options)


@pytest.fixture
def spoiled(check, planted):
    """The same for a copy of the sources with a defect."""

    def run(file, right, wrong, only="param_gather.cu"):
        return check("--sources", str(planted(ROOT / "csrc", file, right, wrong)), "--only", only)

    return run


def test_every_kernel_is_reported(check):
    code, words, content = check("--only", "param_gather.cu")
    assert (code, content["files"]) == (0, [{"source": "csrc/cuda/param_gather.cu", "failures": []}]), words
    assert set(content["versions"]) == {"nvcc", "torch"}
    assert {row["kernel"]: row["instances"] for row in content["rows"]} == {"param_gather": 4, "invert_index": 1, "param_gather_sum": 4}
    for row in content["rows"]:
        assert (row["arch"], row["stack"], row["spills"], row["failures"]) == ("sm_90", 0, 0, [])
        assert 0 < row["registers"] < 255


def test_a_spill_is_reported(spoiled):
    code, words, content = spoiled("cuda/param_gather_kernels.h", r"__launch_bounds__\(row_sum_threads\)", "__maxnreg__(16)")
    assert code == 1
    (spilled,) = (row for row in content["rows"] if row["spills"])
    assert spilled["kernel"] == "param_gather_sum"
    assert all(re.match("param_gather_sum<.*> keeps .* spills: [1-9]", failure) for failure in spilled["failures"])
    assert f"FAILED: param_gather_sum sm_90: {spilled['failures'][0]}" in words


def test_a_kernel_that_does_not_compile_is_reported(spoiled):
    code, words, content = spoiled("cuda/param_gather_kernels.h", r"\Z", "using Broken = no_such_word;\n")
    assert (code, content["rows"]) == (1, [])
    assert "no_such_word" in content["files"][0]["failures"][0]
    assert "FAILED: csrc/cuda/param_gather.cu: does not compile" in words


def test_a_binding_that_does_not_compile_is_reported(spoiled):
    code, _, content = spoiled("cuda/param_gather_op.cpp", r"\A", '#include "no_such_file.h"\n', only="param_gather_op")
    assert code == 1
    assert "no_such_file.h" in content["files"][0]["failures"][0]


def test_a_recorded_result_stands_until_a_source_changes(check, planted):
    assert check("--only", "param_gather.cu")[0] == 0
    code, words, _ = check("--only", "param_gather.cu", "--recorded")
    assert (code, "compiling all" in words) == (0, False)
    changed = planted(ROOT / "csrc", "cuda/param_gather_kernels.h", r"\Z", "// changed\n")
    code, words, _ = check("--only", "param_gather.cu", "--recorded", "--sources", str(changed))
    assert (code, "compiling all" in words) == (0, True)


def test_a_report_of_another_form_is_a_failure(script):
    compiled = script("resources.cuda_report").Compiled("csrc/cuda/param_gather.cu", "Compiling entry function 'f' for 'sm_90'\n", False)
    assert "not understood" in compiled.failures()[0]


def test_without_nvcc_nothing_is_checked(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(script("resources.cuda_report"), "find_nvcc", lambda: None)
    assert script("resources.__main__").main(["cuda", "--output", str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out == "cuda-check: skipped: nvcc was not found; install the CUDA toolkit, or name it in CUDA_HOME\n"
    assert not list(tmp_path.iterdir())
