"""scripts.resources finds planted defects in copies of the kernels.

`make resources`, which CI runs too, compiles the kernels as they are: every tile for every architecture, and other calls.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from scripts.resources.cuda_report import find_nvcc
from scripts.sources import KERNELS, ROOT

CSRC, BINDING = ROOT / "csrc", "cuda/param_gather_op.cpp"
CELL = "cross_rnn_step {} sm_90".format
PAST = r'tl.inline_asm_elementwise("ld.global.nc.f32 $0, [$1];", "=f,l", [(h + read).to(tl.int64)], tl.float32, True, 1)'
TRITON = {
    "spills": (
        "cross_rnn.py", r'"float64": \{0: \[\(32, 32, 16, 4, 3\)\]\}', '"float64": {0: [(64, 64, 16, 4, 3)]}', CELL("float64"),
        "bytes of stack",
    ),
    "shared memory": (
        "cross_rnn.py", r"return tile\.stages \* ", "return 1 + 0 * ", CELL("tf32"), "the kernel's tiles expect at most 2049",
    ),
    "no tensor cores": (
        "common.py", r"input_precision=PRECISION", 'input_precision="ieee"', CELL("tf32"), "uses no tensor cores",
    ),
    "unknown name": (
        "common.py", r"return 1\.0 / \(1\.0 \+ tl\.exp\(-x\)\)", "return no_such(x)", CELL("float64"), "does not compile",
    ),
    "stale loads": (
        "low_rank.py", r"tl\.load\(h \+ read, mask=units, other=0\.0\)", PAST, "low_rank_forward tf32 sm_90 rank=32",
        "may miss what the program wrote",
    ),
    "a name that PyTorch's compiler drops": (
        "param_gather.py", r"    store\(target\[", "    common.store(target[", "param_gather_sum bfloat16", "as PyTorch writes it",
    ),
}  # fmt: skip
CUDA = {
    "a spill": (
        "cuda/param_gather_kernels.h", r"__launch_bounds__\(row_sum_threads\)", "__maxnreg__(16)", "param_gather.cu", "spills: ",
    ),
    "a kernel": ("cuda/param_gather_kernels.h", r"\Z", "using Broken = no_such_word;\n", "param_gather.cu", "no_such_word"),
    "a binding": (BINDING, r"\A", '#include "no_such_file.h"\n', "param_gather_op", "no_such_file.h"),
}  # fmt: skip
"""By defect: the file, what a pattern matches first in it, what takes its place, the kernels to compile, and what is reported."""
WHERE = {
    "triton": (KERNELS, TRITON, pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")),
    "cuda": (CSRC, CUDA, pytest.mark.skipif(find_nvcc() is None, reason="nvcc was not found")),
}
DEFECTS = [
    pytest.param(language, folder, *defect, marks=marks, id=f"{language}, {name}")
    for language, (folder, defects, marks) in WHERE.items()
    for name, defect in defects.items()
]


@pytest.mark.parametrize(("language", "folder", "file", "right", "wrong", "only", "said"), DEFECTS)
def test_a_defect_in_a_copy_of_the_kernels_is_reported(tmp_path, language, folder, file, right, wrong, only, said):
    copy, found = tmp_path / "copy", tmp_path / "found.json"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text(encoding="utf-8")
    assert re.search(right, text), f"{file} must contain this, to plant a defect there: {right}"
    (copy / file).write_text(re.sub(right, wrong, text, count=1), encoding="utf-8")
    command = [sys.executable, "-m", "scripts.resources", language, "--sources", str(copy), "--output", str(found), "--archs", "90"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([*command, "--only", only], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr[-4000:]
    sections = [section for section in json.loads(found.read_text(encoding="utf-8")).values() if isinstance(section, list)]
    failures = [failure for section in sections for row in section for failure in row["failures"]]
    assert any(said in failure for failure in failures)
    assert all(failure in done.stdout for failure in failures), "every failure is printed"
