"""scripts.resources triton finds planted defects.

`make resources`, which CI runs too, compiles the kernels as they are: every tile for every architecture, and other calls.
"""

import json

import pytest

pytest.importorskip("triton")


def failed(rows, word):
    """The failures with this word, and what names their rows."""
    shown = ("kernel", "kind", "arch", "rank", "tile", "warps", "stages", "variant")
    return [(*(row.get(name) for name in shown), failure) for row in rows for failure in row["failures"] if word in failure]


COMMON, CELL, LOW_RANK = "common.py", "cross_rnn.py", "low_rank.py"
PAST = r'tl.inline_asm_elementwise("ld.global.nc.f32 $0, [$1];", "=f,l", [(h + read).to(tl.int64)], tl.float32, True, 1)'
DEFECTS = {
    "spills": (CELL, r'"float64": \{0: \[\(32, 32, 16, 4, 3\)\]\}', '"float64": {0: [(64, 64, 16, 4, 3)]}', "float64", "bytes of stack"),
    "shared memory": (CELL, r"return tile\.stages \* ", "return 1 + 0 * ", "tf32", "the kernel's tiles expect at most 2049"),
    "no tensor cores": (COMMON, r"input_precision=PRECISION", 'input_precision="ieee"', "tf32", "uses no tensor cores"),
    "unknown name": (COMMON, r"return 1\.0 / \(1\.0 \+ tl\.exp\(-x\)\)", "return no_such(x)", "float64", "does not compile"),
    "stale loads": (LOW_RANK, r"tl\.load\(h \+ read, mask=units, other=0\.0\)", PAST, "tf32", "may miss what the program wrote"),
}


@pytest.mark.parametrize(("file", "right", "wrong", "kind", "said"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_in_a_copy_of_the_kernels_is_reported(script, planted, resources, tmp_path, file, right, wrong, kind, said):
    copy = planted(script("sources").KERNELS, file, right, wrong)
    only = f"low_rank_forward {kind} sm_90 rank=32" if file == LOW_RANK else f"cross_rnn_step {kind} sm_90"
    code, words, content = resources("triton", tmp_path / "found.json", "--sources", str(copy), "--archs", "90", "--only", only)
    assert failed(content["rows"], said)
    assert code == 1
    assert all(failure in words for *_, failure in failed(content["rows"], "")), "every failure is printed"


def test_a_kernel_that_pytorchs_compiler_would_write_without_what_it_calls_is_reported(script, planted, resources, tmp_path):
    """The compiler follows plain names alone. Triton itself finds a function by the name of its module too."""
    copy = planted(script("sources").KERNELS, "param_gather.py", r"    store\(target\[", "    common.store(target[")
    options = ("--archs", "90", "--only", "param_gather_sum bfloat16")
    code, _, content = resources("triton", tmp_path / "found.json", "--sources", str(copy), *options)
    assert not failed(content["rows"], "")
    assert failed(content["reemission"], "as PyTorch writes it")
    assert code == 1


GATHER = ("--archs", "90", "--only", "param_gather_(rows|sum) bfloat16")


@pytest.fixture
def recorded(resources, tmp_path):
    """A function that runs the report on two kernels with ``--recorded``, after a first run without; and the file of both."""
    found = tmp_path / "found.json"
    assert resources("triton", found, *GATHER)[0] == 0
    return (lambda *options: resources("triton", found, *GATHER, "--recorded", *options)), found


def test_a_recorded_result_stands_where_nothing_has_changed(recorded):
    run, found = recorded
    before = found.read_text(encoding="utf-8")
    code, words, _ = run()
    assert "2 rows, 6 variants, 2 reemission, 0 failed" in words
    assert "compiling" not in words
    assert code == 0
    assert found.read_text(encoding="utf-8") == before


def test_a_recorded_failure_stays_a_failure(recorded):
    run, found = recorded
    content = json.loads(found.read_text(encoding="utf-8"))
    content["rows"].append({**content["rows"][0], "failures": ["spills"]})
    found.write_text(json.dumps(content), encoding="utf-8")
    code, words, _ = run()
    assert "param_gather_rows bfloat16" in words.partition("FAILED: ")[2]
    assert code == 1


def test_everything_is_compiled_again_after_a_change_of_a_kernel(script, recorded, planted):
    run, _ = recorded
    copy = planted(script("sources").KERNELS, "param_gather.py", r"(?m)^$", "# changed")
    code, words, content = run("--sources", str(copy))
    assert "compiling all" in words
    assert (code, len(content["rows"])) == (0, 2)
