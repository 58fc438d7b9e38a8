"""scripts.resources triton finds planted defects.

`make resources`, which CI runs too, compiles the kernels as they are: every tile for every architecture and dtype, and every variant.
"""

import json
from itertools import product

import pytest

pytest.importorskip("triton")

from dcrnn_fast.kernels import low_rank_tiles, tile_table
from tests.processes import run_python

SMALL = ("--tile", "-2")


def failed(rows, word):
    """The failures with this word, and what names their rows."""
    shown = ("kernel", "kind", "arch", "rank", "tile", "warps", "stages", "variant")
    return [(*(row.get(name) for name in shown), failure) for row in rows for failure in row["failures"] if word in failure]


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
def test_every_kernel_has_a_configuration_for_every_card(arch):
    card = tile_table.Card("any", 100, tile_table.SHARED_MEMORY[arch], arch // 10)
    for kernel, kind, gates in product(tile_table.KERNELS, tile_table.ITEMSIZE, (1, 2)):
        assert tile_table.candidates(kernel, kind, gates, card), (kernel, kind, gates)
    for kernel, kind, gates in product(low_rank_tiles.KERNELS, tile_table.ITEMSIZE, (1, 2)):
        assert low_rank_tiles.candidates(kernel, kind, gates, 64, card), (kernel, kind, gates)


def test_a_tile_that_spills_on_a_card_is_no_candidate_there():
    cards = [tile_table.Card("any", 100, tile_table.SHARED_MEMORY[arch], arch // 10) for arch in (80, 90)]
    spilling = tile_table.Config(128, 64, 64, 4, 3)
    assert [spilling in tile_table.candidates("step", "bfloat16", 2, card) for card in cards] == [False, True]


def test_the_fixed_blocks_are_those_of_the_launches(script):
    from dcrnn_fast.kernels import cross_rnn_backward_launch as backward
    from dcrnn_fast.kernels import param_gather_launch as gather

    report = script("resources.triton_report")
    columns = 2 * report.COMMON_RANK
    fixed = {
        "start": {"BLOCK_D": backward.START_UNITS},
        "gather": {"BLOCK_R": gather.GATHER_VALUES // gather.GATHER_COLUMNS, "BLOCK_N": gather.GATHER_COLUMNS},
        "gather_low_rank": {
            "RANK": report.COMMON_RANK,
            "BLOCK_R": gather.GATHER_VALUES // columns,
            "BLOCK_N": columns,
            "BLOCK_P": gather.GATHER_VALUES // gather.GATHER_COLUMNS,
            "BLOCK_K": gather.GATHER_COLUMNS,
        },
        "gather_readers": {"BLOCK_S": gather.LIST_ROWS, "BLOCK_R": gather.LIST_PLACES},
        "gather_sum": {"BLOCK_S": 1, "BLOCK_N": gather.SUM_VALUES},
    }
    assert fixed == report.FIXED


def test_an_addition_that_fusion_changes_is_a_failure(script):
    report = script("resources.triton_report")
    job = report.Job("step", "float32", 90, (), warps=4)
    assert not report.fusion_of(job, {"FADD": 3, "FMUL": 2}, {"FADD": 3, "FMUL": 2})["failures"]
    assert "fusion changes the additions" in report.fusion_of(job, {"FADD": 3, "FMUL": 2}, {"FADD": 1, "FFMA": 2})["failures"][0]


def test_a_loop_may_issue_so_many_instructions_for_each_cycle_of_its_products_and_must_leave_one_running(script):
    loops = script("resources.triton_loops")
    facts = {"loop_divisions": 0, "loop_index_loads": 0, "loop_issue": 0.5, "loop_wait": 1}
    assert not loops.loop_failures("step", "bfloat16", 128, facts)
    assert "issues 0.51 instructions" in loops.loop_failures("step", "bfloat16", 128, {**facts, "loop_issue": 0.51})[0]
    assert "waits until 0 products run" in loops.loop_failures("step", "bfloat16", 128, {**facts, "loop_wait": 0})[0]


def test_every_kernel_with_tiles_has_limits(script):
    loops = script("resources.triton_loops")
    assert set(loops.LIMITS) == set(loops.TF32_LIMITS) == set(tile_table.KERNELS)


def test_a_loop_is_told_from_code_that_waits_at_the_end_and_jumps_back(script):
    """The jump from 0x50 to 0x10 makes a loop. That from 0x80 to 0x30 makes none: 0x30 is reached in the loop without it."""
    lines = ["MOV R1", "HMMA.16816.F32 R2", "@!P1 BRA 0x70", "LDG.E.128 R3", "FADD R4", "@P0 BRA 0x10", "EXIT", "NOP", "BRA 0x30"]
    code = script("resources.machine_code").code_of("\n".join(f"/*{16 * at:04x}*/ {line} ;" for at, line in enumerate(lines)))
    (loop,) = script("resources.machine_code").inner_loops(code)
    assert [one.at for one in loop] == [0x10, 0x20, 0x30, 0x40, 0x50, 0x70, 0x80]
    assert script("resources.triton_loops").loop_facts(code, "", 90) == {
        "loop_instructions": 6, "loop_cycles": 4.0, "loop_issue": 1.5, "loop_wait": None, "loop_loads": {"16": 1}, "loop_async_loads": {},
        "loop_divisions": 0, "loop_index_loads": 0, "stale_loads": 0,
    }  # fmt: skip


TABLE, TILES, FORWARD = "tile_table.py", "tiles.py", "cross_rnn_forward.py"
COLUMN = r"k = (start \+ tl\.arange\(0, BLOCK_K\))"
PAST = r'tl.inline_asm_elementwise("ld.global.nc.f32 $0, [$1];", "=f,l", [(h + at).to(tl.int64)], tl.float32, True, 1)'
DEFECTS = {
    "spills": (TABLE, r'"step": \[\(32, 32, 16, 4, 3\)\]', '"step": [(64, 64, 16, 4, 3)]', "float64", "spills"),
    "shared memory": (TABLE, r"return config\.num_stages \* ", "return 1 + 0 * ", "tf32", "tile_table.shared_bytes estimates 1"),
    "narrow loads": (TILES, r"(tl\.multiple_of\(.*), ALIGN\)", r"\1, 1)", "bfloat16", "asynchronous loads of 16 bytes"),
    "no tensor cores": (TILES, r"input_precision=PRECISION", 'input_precision="ieee"', "tf32", "has no HGMMA"),
    "serial products": (TABLE, r"\(64, 64, 64, 4, 3\), ", "(128, 64, 64, 8, 3), ", "bfloat16", "waits until 0 products run"),
    "division in a loop": (TILES, COLUMN, r"k = (\1) // columns", "tf32", "divisions in a product loop"),
    "index in a loop": (TILES, COLUMN, r"k = \1 + tl.sum(tl.load(left.to(tl.pointer_type(tl.int32)) + start), 0)", "tf32", "1 index loads"),
    "stale loads": (FORWARD, r"tl\.load\(h \+ at, mask=stored\)", PAST, "tf32", "may miss what the program wrote"),
    "unknown name": (TILES, r"return 1\.0 / \(1\.0 \+ tl\.exp\(-x\)\)", "return no_such(x)", "float64", "does not compile"),
}


@pytest.mark.parametrize(("file", "right", "wrong", "kind", "said"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_in_a_copy_of_the_kernels_is_reported(script, planted, resources, tmp_path, file, right, wrong, kind, said):
    copy = planted(script("sources").KERNELS, file, right, wrong)
    names = "all_steps" if file == FORWARD else "step"
    options = ("--archs", "90", "--sections", "rows", *SMALL, "--names", names, "--kinds", kind)
    code, words, content = resources("triton", tmp_path / "found.json", "--kernels", str(copy), *options)
    assert failed(content["rows"], said)
    assert code == 1
    assert all(failure in words for *_, failure in failed(content["rows"], "")), "every failure is printed"


def test_a_kernel_that_pytorchs_compiler_would_write_without_what_it_calls_is_reported(script, planted, resources, tmp_path):
    """The compiler follows plain names alone. Triton itself finds a function by the name of its module too."""
    right, wrong = r"(?s)(from \.tiles import .*)(store\(target)", r"from . import tiles\n\1tiles.\2"
    copy = planted(script("sources").KERNELS, "param_gather.py", right, wrong)
    options = ("--archs", "90", "--kinds", "bfloat16", "--names", "gather_sum", "--sections", "rows", "reemission")
    code, _, content = resources("triton", tmp_path / "found.json", "--kernels", str(copy), *options)
    assert not failed(content["rows"], "")
    assert failed(content["reemission"], "does not compile as PyTorch's compiler writes it")
    assert code == 1


GATHER = ("--archs", "90", "--sections", "rows", "--kinds", "bfloat16", "--names", "gather", "gather_sum")


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
    assert "2 of 2 recorded rows compiled again, 0 not as recorded" in words
    assert code == 0
    assert found.read_text(encoding="utf-8") == before


def test_a_recorded_row_that_the_compiler_does_not_repeat_is_a_failure(recorded):
    run, found = recorded
    content = json.loads(found.read_text(encoding="utf-8"))
    content["rows"][0]["registers"] -= 1
    found.write_text(json.dumps(content), encoding="utf-8")
    code, words, after = run()
    assert "1 not as recorded" in words
    assert "FAILED: gather bfloat16 sm_90" in words
    assert "compiled again, this is not as recorded" in words
    assert (code, after) == (1, content)


def test_a_recorded_failure_stays_a_failure(recorded):
    run, found = recorded
    content = json.loads(found.read_text(encoding="utf-8"))
    content["rows"].append({**content["rows"][0], "failures": ["spills"]})
    found.write_text(json.dumps(content), encoding="utf-8")
    code, words, _ = run()
    assert "gather bfloat16" in words.partition("FAILED: ")[2]
    assert code == 1


def test_everything_is_compiled_again_after_a_change_of_a_kernel(script, recorded, planted):
    run, _ = recorded
    copy = planted(script("sources").KERNELS, "param_gather.py", r"(?m)^$", "# changed")
    code, words, content = run("--kernels", str(copy))
    assert "compiling all" in words
    assert (code, len(content["rows"])) == (0, 2)


def test_every_kernel_with_a_planted_defect_compiles(script):
    script("resources.triton_compile")
    done = run_python("-m", "tests.scripts.resources.compiled_mutants")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if not line.endswith(": compiles")] == []
