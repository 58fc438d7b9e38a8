"""The installed package: light to import, clear about its extensions, and bound to nothing but PyTorch's stable ABI."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import dcrnn_fast
from dcrnn_fast import info
from dcrnn_fast.ops import backends
from tests.processes import run_python


def run_code(code: str) -> str:
    """What the code prints in a process of its own."""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_imports_and_trains_with_torch_and_numpy_alone():
    """Every module of an extra is hidden from the import system."""
    code = """
import sys
extras = "duckdb matplotlib platformdirs pyarrow pydantic yaml rich safetensors sklearn tensorboard torchrec typer triton"
for name in extras.split():
    sys.modules[name] = None
import torch
from dcrnn_fast import DCRNN, info
model = DCRNN([3, 4])
model.loss(model(torch.zeros(2, 2, dtype=torch.int64)), torch.zeros(2, 2)).backward()
info.render()
from dcrnn_fast import *
from dcrnn_fast.errors import MissingExtra
try:
    from dcrnn_fast import Ranker
except MissingExtra as error:
    assert "pip install 'dcrnn_fast[train]'" in str(error)
else:
    raise AssertionError("Ranker is there without its packages")
"""
    run_code(code)


def test_importing_the_package_imports_no_compiler_and_touches_no_gpu():
    """Each takes longer than the package itself."""
    unneeded = "{'torch._dynamo', 'torch._inductor', 'sklearn'} & sys.modules.keys()"
    run_code(f"import sys, torch, dcrnn_fast, dcrnn_fast.serving; assert not torch.cuda.is_initialized(); assert not {unneeded}")
    assert Path(dcrnn_fast.__file__).with_name("py.typed").is_file()


def test_preparing_and_inspecting_a_table_does_not_wait_for_torch(tmp_path):
    table, schema, packed = (str(tmp_path / name) for name in ("table.csv", "schema.yaml", "packed"))
    Path(table).write_text("user,click\n1,0\n2,1\n1,1\n2,0\n")
    code = f"""
import contextlib, io, sys
from dcrnn_fast.cli import main
draft, prepare = ["inspect", "--input", {table!r}], ["prepare", "--schema", {schema!r}, "--output", {packed!r}]
for arguments in (draft, prepare, ["inspect", "--data", {packed!r}]):
    sys.argv[1:], said = arguments, io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main()
    if arguments is draft:
        open({schema!r}, "w").write(said.getvalue())
assert "Labels" in said.getvalue(), said.getvalue()
assert "torch" not in sys.modules
"""
    run_code(code)


has_compiler = pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler on this machine")


@has_compiler
def test_where_there_is_a_compiler_the_extension_is_built():
    compiled = backends.extension()
    assert compiled is not None, backends.extension_missing_reason()
    info = compiled.build_info()
    assert info["abi_target"] == "2.10"
    assert info["built_against_torch"].count(".") == 2
    assert info["cxx_standard"] >= 202002
    assert compiled.isa() in ("amx", "avx512", "avx2", "baseline")


@has_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm on this machine")
@pytest.mark.parametrize("extension", [backends.extension, backends.cuda_extension], ids=["_C", "_C_cuda"])
def test_the_extensions_use_only_the_stable_abi(extension):
    """Symbols of at::, c10:: and torch:: would bind the binary to one PyTorch; the stable ABI is plain C."""
    if extension is backends.cuda_extension and extension() is None:
        pytest.skip(f"no CUDA extension here: {backends.cuda_extension_missing_reason()}")
    undefined = subprocess.run(["nm", "-DCu", extension().__file__], capture_output=True, text=True, check=True).stdout
    assert "aoti_torch_library_def" in undefined or "torch_library" in undefined
    assert not [line for line in undefined.splitlines() if any(space in line for space in (" at::", " c10::", " torch::"))]


def test_info_names_the_architectures_of_the_cuda_kernels_or_why_not():
    line = next(line for line in info.render().splitlines() if line.startswith("CUDA kernels"))
    if backends.cuda_extension() is None:
        assert line.endswith(f"absent: {backends.cuda_extension_missing_reason()}")
    else:
        assert re.search(r"compiled for \d+\.\d.* by CUDA \d+\.\d, against PyTorch \d", line), line


def test_without_the_cuda_extension_a_cuda_build_imports_and_says_why():
    code = """
import sys
sys.modules["dcrnn_fast._C_cuda"] = None
import torch
torch.version.cuda = "13.0"
from dcrnn_fast import BackendUnavailable, DCRNN
from dcrnn_fast.ops import backends
assert backends.resolve("auto") in ("cpp", "reference")
try:
    DCRNN([3, 4], backend="cuda")
except BackendUnavailable as error:
    print(error)
"""
    said = run_code(code)
    assert "backend='cuda' cannot be used: the C" in said
    assert "not built" in said


def test_without_the_extension_the_package_runs_and_info_says_why():
    code = """
import sys
sys.modules["dcrnn_fast._C"] = None
import torch
from dcrnn_fast import DCRNN, info
from dcrnn_fast.ops import backends
assert backends.resolve("auto") == "reference"
DCRNN([3, 4])(torch.zeros(2, 2, dtype=torch.int64))
print(info.render())
"""
    assert "absent: " in run_code(code)
