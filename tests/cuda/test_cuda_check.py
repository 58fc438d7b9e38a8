"""scripts/cuda_check.py: what it reports of the CUDA kernels, of planted defects, and where there is no nvcc."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "scripts" / "cuda_check.py").is_file():
    pytest.skip("the tests lie without the scripts", allow_module_level=True)


@pytest.fixture
def scripts(monkeypatch):
    """The script and what it compiles with, as modules."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("cuda_check"), importlib.import_module("cuda_compile")


@pytest.fixture
def check(scripts, tmp_path):
    """The script's exit code, words and result for some files on sm_90."""
    if scripts[1].find_nvcc() is None:
        pytest.skip("nvcc was not found")

    def run(*options):
        output = tmp_path / "cuda_resources.json"
        command = [sys.executable, str(ROOT / "scripts" / "cuda_check.py"), "--archs", "90", "--output", str(output), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert output.is_file(), f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.returncode, done.stdout, json.loads(output.read_text(encoding="utf-8"))

    return run


@pytest.fixture
def planted(check, tmp_path):
    """The same of a copy of the sources in which a line of a file is spoiled."""

    def run(file, right, wrong, only="param_gather"):
        copy = tmp_path / "copy"
        shutil.copytree(ROOT / "csrc", copy)
        text = (copy / file).read_text(encoding="utf-8")
        assert re.search(right, text), f"{file} no longer has the line that a defect is planted in: {right}"
        (copy / file).write_text(re.sub(right, wrong, text, count=1), encoding="utf-8")
        return check("--sources", str(copy), "--only", only)

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


def test_a_spill_is_reported(planted):
    code, words, content = planted("cuda/param_gather_kernels.h", r"sum_blocks_at_once = \d+", "sum_blocks_at_once = 16")
    assert code == 1
    spilled = [row for row in content["rows"] if row["spill_stores"]]
    assert {row["kernel"] for row in spilled} == {"param_gather_sum"}
    assert all(re.match("spills: .* bytes stored", row["failures"][0]) for row in spilled)
    assert len(re.findall("FAILED: param_gather_sum .*spills", words)) == len(spilled)


def test_a_kernel_that_does_not_compile_is_reported(planted):
    code, words, content = planted("cuda/param_gather_kernels.h", r"\Z", "using Broken = no_such_word;\n")
    assert (code, content["rows"]) == (1, [])
    assert "does not compile" in content["files"][0]["failures"][0]
    assert "no_such_word" in content["files"][0]["failures"][0]
    assert "FAILED: csrc/cuda/param_gather.cu sm_90: does not compile" in words


def test_a_binding_that_does_not_compile_is_reported(planted):
    if not (ROOT / "csrc" / "cuda" / "param_gather_op.cpp").is_file():
        pytest.skip("there is no binding")
    code, _, content = planted("cuda/param_gather_op.cpp", r"\A", '#include "no_such_file.h"\n', only="param_gather_op")
    assert (code, content["files"][0]["arch"]) == (1, "host")
    assert "no_such_file.h" in content["files"][0]["failures"][0]


def test_a_kernel_that_the_script_does_not_know_is_reported(planted):
    code, _, content = planted("cuda/param_gather.cu", r"\Z", "__global__ void unknown_kernel() {}\n")
    assert code == 1
    (row,) = (row for row in content["rows"] if row["failures"])
    assert row["kernel"] == "unknown_kernel()"
    assert "is not known" in row["failures"][0]


def test_what_a_card_does_not_grant_is_a_failure(scripts):
    usage = {"registers": 64, "stack": 0, "spill_stores": 0, "spill_loads": 0, "static_shared": 24}
    shape = {"warps": 8, "dynamic_shared": 232448 - 24}
    assert scripts[0].failures(90, shape, usage) == []
    assert "shared memory" in scripts[0].failures(90, {**shape, "dynamic_shared": 232449 - 24}, usage)[0]
    assert "shared memory" in scripts[0].failures(120, shape, usage)[0]
    assert scripts[0].failures(120, {**shape, "least_shared": 1000}, usage) == []  # all steps are launched where they fit
    assert "registers" in scripts[0].failures(90, {"warps": 32, "dynamic_shared": 0}, {**usage, "registers": 72})[0]
    assert "stack" in scripts[0].failures(90, shape, {**usage, "stack": 8})[0]


def test_a_report_of_another_form_is_a_failure(scripts):
    compiled = scripts[1].Compiled("csrc/cuda/param_gather.cu", 90, "ptxas info : Compiling entry function 'f' for 'sm_90'\n", False)
    assert "not understood" in compiled.failures()[0]


def test_without_nvcc_nothing_is_checked(scripts, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(scripts[1], "TOOLKIT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["cuda_check.py", "--output", str(tmp_path / "result.json")])
    scripts[0].main()
    assert capsys.readouterr().out == ("cuda-check: skipped: nvcc was not found; install the CUDA toolkit, or name it in CUDA_HOME\n")
    assert not list(tmp_path.iterdir())
