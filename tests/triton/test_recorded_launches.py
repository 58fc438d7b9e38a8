"""Launches that are recorded and not made, of the largest sizes: every grid fits a GPU, every address is exact and inside its tensor."""

from dataclasses import replace
from itertools import product

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from dcrnn_fast.kernels import INTERPRETED
from dcrnn_fast.ops import cross_rnn, low_rank_cross_rnn
from dcrnn_fast.ops.registry import Needs
from dcrnn_fast.ops.triton import functions

from .programs import Launch, corners, recorded, run_without_memory, small_tiles

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")
OPERATORS = functions()
MOST = 2**31 - 1
LARGEST_GRID = (MOST, 65535, 65535)
"""Programs in each dimension of a grid, of every architecture, from NVIDIA's CUDA C++ programming guide."""


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, dtype=dtype, device="meta")


def cross_launches(B, D, T, L, *, C=0, tied=True, states=False, keep=3, dtype=torch.bfloat16, backward=True):
    """The launches of a forward, and of its backward, and the largest value that the index may have."""
    rows = D if tied else L * D
    shared, private = rows // 2, rows - rows // 2
    banks = empty(shared, 2, C + D), empty(shared, 2), empty(T, private, 2, C + D), empty(T, private, 2)
    context = empty(L, B, C).to(dtype) if C else None
    tensors = *(value.to(dtype) for value in (empty(B, D), *banks)), empty(T, rows, dtype=torch.int32)
    call = cross_rnn.Arguments(*tensors, L, context=context, return_states=states, keep=keep)
    needs = Needs.X0 | Needs.BANKS | (Needs.CONTEXT if C else 0)
    with recorded() as found:
        out, kept, activations = OPERATORS["cross_rnn"](*call)
        if states and keep & 2:
            kept = out[:, 1:L]
        if backward:
            OPERATORS["cross_rnn_backward"](torch.empty_like(out), kept, activations, int(needs), *call[:-1])
    return found, rows - 1


def low_rank_launches(B, D, T, L, *, rank=8, C=0, tied=True, states=False, keep=True, dtype=torch.bfloat16):
    """The same of the low-rank cell."""
    rows, places = (D, rank) if tied else (L * D, L * rank)
    banks = [empty(rows, 2, rank), empty(rows, 2), empty(T, rows, 2, rank), empty(T, rows, 2)]
    context = empty(L, B, C).to(dtype) if C else None
    tensors = *(value.to(dtype) for value in (empty(B, D), *banks)), empty(T, rows, dtype=torch.int32)
    projection = empty(places, 2, C + D).to(dtype), empty(T, places, 2, C + D).to(dtype), empty(T, places, dtype=torch.int32)
    call = low_rank_cross_rnn.Arguments(*tensors, *projection, L, context=context, return_states=states, keep=keep)
    needs = Needs.X0 | Needs.BANKS | Needs.PROJECTIONS | (Needs.CONTEXT if C else 0)
    with recorded() as found:
        out, activations = OPERATORS["low_rank_cross_rnn"](*call)
        OPERATORS["low_rank_cross_rnn_backward"](torch.empty_like(out), activations, int(needs), *call[:-1])
    return found, 2 * min(rows, places) - 1


def gather_launches(rows, columns, tasks=2, gathered=None):
    """The launches of a gather and its backward, from two banks of ``rows`` rows."""
    with recorded() as found:
        shared, private, index = empty(rows, columns), empty(tasks, rows, columns), empty(tasks, gathered or 2 * rows, dtype=torch.int32)
        OPERATORS["param_gather_backward"](OPERATORS["param_gather"](shared, private, index), index, rows, rows)
    return found, 2 * rows - 1


LARGE = {
    "most rows": (cross_launches, {"B": MOST, "D": 8, "T": 1, "L": 2}),
    "most rows of an odd size": (cross_launches, {"B": MOST, "D": 9, "T": 2, "L": 2, "keep": 0, "states": True}),
    "most rows and a context": (cross_launches, {"B": MOST, "D": 8, "T": 1, "L": 2, "C": 8, "tied": False}),
    "wide": (cross_launches, {"B": 2**24, "D": 136, "T": 2, "L": 1, "dtype": torch.float32, "states": True}),
    "many tasks": (cross_launches, {"B": 2**22, "D": 8, "T": 80, "L": 1, "C": 8}),
    "many steps": (cross_launches, {"B": 2**24, "D": 8, "T": 2, "L": 8, "keep": 2}),
    "low rank, most rows": (low_rank_launches, {"B": MOST, "D": 8, "T": 1, "L": 2, "C": 8}),
    "low rank, most rows of an odd size": (low_rank_launches, {"B": MOST, "D": 9, "T": 2, "L": 3, "rank": 3, "keep": 0, "states": True}),
    "low rank, many tasks and steps": (low_rank_launches, {"B": 2**22, "D": 8, "T": 80, "L": 3, "tied": False}),
    "gather": (gather_launches, {"rows": 2**5, "columns": 65535 * 512}),
}
"""Sizes at which 32-bit numbers would end. Their tensors have no memory. Few units and steps, so that a program ends soon."""

LARGEST = {
    **LARGE,
    "low rank, 8192 units": (low_rank_launches, {"B": 2**22, "D": 8192, "T": 4, "L": 3, "C": 8192, "rank": 256, "tied": False}),
    "8192 units": (cross_launches, {"B": 2**22, "D": 8192, "T": 4, "L": 3, "C": 8192}),
    "8192 units, untied, nothing kept": (cross_launches, {"B": 2**22, "D": 8192, "T": 4, "L": 3, "tied": False, "keep": 0}),
    "most tasks": (cross_launches, {"B": 70_000, "D": 8, "T": 65535, "L": 1, "C": 8}),
    "most steps": (low_rank_launches, {"B": 2**22, "D": 64, "T": 1, "L": 65535, "C": 8, "keep": 0}),
    "most columns of a gather": (gather_launches, {"rows": 2, "columns": 2**25 + 1}),
    "most rows of banks": (gather_launches, {"rows": 2**24, "columns": 8, "tasks": 63}),
}


def excess(launch):
    """What of a launch no card holds, or an argument that is no integer of 64 bits."""
    found = [f"grid {launch.grid}"] if any(not 1 <= size <= most for size, most in zip(launch.grid, LARGEST_GRID, strict=False)) else []
    found += [f"{name}={value!r}" for name, value in launch.integers.items() if type(value) is not int or not -(2**63) <= value < 2**63]
    return found + ([f"{launch.options['num_warps']} warps"] if 32 * launch.options.get("num_warps", 4) > 1024 else [])


@pytest.mark.parametrize(("make", "sizes"), LARGEST.values(), ids=LARGEST)
def test_the_largest_launches_fit_every_card_with_the_smallest_tiles(make, sizes):
    with small_tiles():
        made = make(**sizes)[0]
    assert made
    assert not [f"{launch.name}: {problem}" for launch in made for problem in excess(launch)]


def test_more_tasks_than_a_grid_has_room_for_are_refused():
    with pytest.raises(ValueError, match="got 65536 tasks, expected at most 65535"):
        cross_launches(8, 8, 65536, 1, backward=False)


@pytest.mark.parametrize(("make", "sizes"), LARGE.values(), ids=LARGE)
def test_at_the_largest_sizes_no_32_bit_number_overflows_and_no_address_leaves_its_tensor(make, sizes):
    found, last_row = make(**sizes)
    for launch in found:
        run_without_memory(launch, corners(launch.grid), last_row)


@pytest.mark.parametrize("options", [{"states": True}, {"tied": False, "keep": 0}], ids=["tied, every state", "untied, recomputed"])
def test_at_odd_sizes_no_program_leaves_its_tensors(options):
    found, last_row = cross_launches(67, 33, 1, 2, C=3, **options)
    for launch in found:
        run_without_memory(launch, list(product(*map(range, (*launch.grid, 1, 1)[:3]))), last_row)


@pytest.mark.parametrize("options", [{"states": True}, {"tied": False, "keep": 0}], ids=["tied, every state", "untied, recomputed"])
def test_at_odd_sizes_no_program_of_the_low_rank_cell_leaves_its_tensors(options):
    found, last_row = low_rank_launches(35, 17, 1, 3, C=3, rank=5, **options)
    assert {launch.name for launch in found} >= {"low_rank_forward", "low_rank_states", "low_rank_backward", "low_rank_inputs"}
    for launch in found:
        run_without_memory(launch, list(product(*map(range, (*launch.grid, 1, 1)[:3]))), last_row)


@pytest.mark.parametrize("kernel", ["param_gather_rows", "param_gather_readers", "param_gather_sum"])
def test_an_index_of_more_than_two_billion_values_is_read_inside_its_memory(kernel):
    found, last_row = gather_launches(rows=1, columns=1, tasks=2**25 + 8, gathered=64)
    for launch in found:
        if launch.name == kernel:
            run_without_memory(launch, corners(launch.grid)[-1:], last_row)


@triton.jit
def _short_offsets(x, out, B, D, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at * D, tl.load(x + at * D, mask=at < B), mask=at < B)


@triton.jit
def _short_places(
    grad, first_part, bias_rows, readers, ranges, shared, private, shared_bias, private_bias,
    R, K, parts, task_stride, part_stride, row_stride, gate_stride, first_stride, bank_rows, num_shared,
    G: tl.constexpr, FIRST: tl.constexpr, BIAS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    first = tl.load(ranges + 2 * row, mask=row < bank_rows, other=0)
    for number in range(tl.max(tl.load(ranges + 2 * row + 1, mask=row < bank_rows, other=0) - first)):
        place = tl.load(readers + first + number, mask=row < bank_rows, other=0)
        at = (place >> 32).to(tl.int32) * task_stride + (place & 0xFFFFFFFF).to(tl.int32) * row_stride
        tl.store(shared + row, tl.load(grad + at, mask=row < bank_rows), mask=row < num_shared)


@triton.jit
def _no_mask(x, out, B, D, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    tl.store(out + at * D, tl.load(x + at * D))


def test_sums_that_number_the_places_with_32_bits_are_found():
    found, last_row = gather_launches(rows=2**5, columns=65535 * 512)
    launch = next(launch for launch in found if launch.name == "param_gather_sum")
    run_without_memory(launch, corners(launch.grid), last_row)
    with pytest.raises(InterpreterError, match="int32 overflow"):
        run_without_memory(replace(launch, kernel=_short_places), [(0, 0, 0)], last_row)


@pytest.mark.parametrize(("kernel", "error"), [(_short_offsets, "int32 overflow"), (_no_mask, "leaves a tensor")], ids=["32 bits", "mask"])
def test_an_overflow_and_a_forgotten_mask_are_found(kernel, error):
    x = empty(2**28 + 5, 8)
    launch = Launch(kernel, (2**21 + 1,), {"x": x, "out": torch.empty_like(x), "B": x.shape[0], "D": 8, "BLOCK": 128}, {})
    run_without_memory(replace(launch, grid=(8,)), corners((8,)), 0)
    with pytest.raises(InterpreterError, match=error):
        run_without_memory(launch, corners(launch.grid), 0)
