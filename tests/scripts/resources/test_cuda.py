"""scripts.resources cuda finds planted defects."""

import pytest

from scripts.resources.cuda_report import find_nvcc

from .conftest import ROOT

KERNELS, BINDING = "cuda/param_gather_kernels.h", "cuda/param_gather_op.cpp"
DEFECTS = {
    "a spill": (KERNELS, r"__launch_bounds__\(row_sum_threads\)", "__maxnreg__(16)", "param_gather.cu", "spills: "),
    "a kernel": (KERNELS, r"\Z", "using Broken = no_such_word;\n", "param_gather.cu", "no_such_word"),
    "a binding": (BINDING, r"\A", '#include "no_such_file.h"\n', "param_gather_op", "no_such_file.h"),
}


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc was not found")
@pytest.mark.parametrize(("file", "right", "wrong", "only", "said"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_in_a_copy_of_the_kernels_is_reported(spoiled, file, right, wrong, only, said):
    code, _, content = spoiled("cuda", ROOT / "csrc", file, right, wrong, only)
    assert code == 1
    assert any(said in failure for row in (*content["rows"], *content["files"]) for failure in row["failures"])
