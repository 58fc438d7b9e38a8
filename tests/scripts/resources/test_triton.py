"""scripts.resources triton finds planted defects.

`make resources`, which CI runs too, compiles the kernels as they are: every tile for every architecture, and other calls.
"""

import pytest

pytest.importorskip("triton")

from scripts.sources import KERNELS

COMMON, CELL, LOW_RANK, GATHER = "common.py", "cross_rnn.py", "low_rank.py", "param_gather.py"
PAST = r'tl.inline_asm_elementwise("ld.global.nc.f32 $0, [$1];", "=f,l", [(h + read).to(tl.int64)], tl.float32, True, 1)'
DEFECTS = {
    "spills": (CELL, r'"float64": \{0: \[\(32, 32, 16, 4, 3\)\]\}', '"float64": {0: [(64, 64, 16, 4, 3)]}', "float64", "bytes of stack"),
    "shared memory": (CELL, r"return tile\.stages \* ", "return 1 + 0 * ", "tf32", "the kernel's tiles expect at most 2049"),
    "no tensor cores": (COMMON, r"input_precision=PRECISION", 'input_precision="ieee"', "tf32", "uses no tensor cores"),
    "unknown name": (COMMON, r"return 1\.0 / \(1\.0 \+ tl\.exp\(-x\)\)", "return no_such(x)", "float64", "does not compile"),
    "stale loads": (LOW_RANK, r"tl\.load\(h \+ read, mask=units, other=0\.0\)", PAST, "tf32", "may miss what the program wrote"),
    "a name that PyTorch's compiler drops": (
        GATHER,
        r"    store\(target\[",
        "    common.store(target[",
        "bfloat16",
        "as PyTorch writes it",
    ),
}


@pytest.mark.parametrize(("file", "right", "wrong", "kind", "said"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_in_a_copy_of_the_kernels_is_reported(spoiled, file, right, wrong, kind, said):
    only = {LOW_RANK: f"low_rank_forward {kind} sm_90 rank=32", GATHER: f"param_gather_sum {kind}"}.get(
        file, f"cross_rnn_step {kind} sm_90"
    )
    code, words, content = spoiled("triton", KERNELS, file, right, wrong, only)
    failures = [failure for row in (*content["rows"], *content["reemission"]) for failure in row["failures"]]
    assert any(said in failure for failure in failures)
    assert all(failure in words for failure in failures), "every failure is printed"
    assert code == 1
