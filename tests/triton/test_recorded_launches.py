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
from dcrnn_fast.ops.cross_rnn import GradMask
from dcrnn_fast.ops.triton import functions

from .programs import Launch, corners, recorded, run_without_memory, small_tiles

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")
OPERATORS = functions()
MOST = 2**31 - 1
LARGEST_GRID = (MOST, 65535, 65535)
"""Programs in each dimension of a grid, of every architecture, from NVIDIA's CUDA C++ programming guide."""


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, dtype=dtype, device="meta")


def cross_launches(B, D, T, L, *, rank=0, C=0, tied=True, states=False, saved=3, dtype=torch.bfloat16, backward=True):
    """The launches of a forward, and of its backward; with a rank, of the low-rank cell."""
    W, S, columns = 1 if tied else L, D // 2, rank or C + D
    shapes = [(B, D), (W, S, 2, columns), (W, S, 2), (T, W, D - S, 2, columns), (T, W, D - S, 2)]
    if rank:
        shapes += [(W, rank // 2, 2, C + D), (T, W, rank - rank // 2, 2, C + D)]
    context = empty(L, B, C, dtype=dtype) if C else None
    call = *(empty(*shape, dtype=dtype) for shape in shapes), L, "gated", context, states, False
    mask = GradMask.X0 | GradMask.WEIGHTS | (GradMask.CONTEXT if C else 0) | (GradMask.PROJECTIONS if rank else 0)
    operator = "low_rank_cross_rnn" if rank else "cross_rnn"
    with recorded() as found:
        out, *kept = OPERATORS[operator](*call, bool(saved) if rank else saved)
        if states and saved & 2 and not rank:
            kept[0] = out[:, 1:L]
        if backward:
            OPERATORS[f"{operator}_backward"](torch.empty_like(out), *kept, int(mask), *call)
    return found


def gather_launches(rows, columns, tasks=2, gathered=None):
    """The launches of a gather and its backward, from two banks of ``rows`` rows."""
    with recorded() as found:
        shared, private, index = empty(rows, columns), empty(tasks, rows, columns), empty(tasks, gathered or 2 * rows, dtype=torch.int32)
        OPERATORS["param_gather_backward"](OPERATORS["param_gather"](shared, private, index), index, rows, rows)
    return found


LARGE = {
    "most rows": (cross_launches, {"B": MOST, "D": 8, "T": 1, "L": 2}),
    "most rows of an odd size": (cross_launches, {"B": MOST, "D": 9, "T": 2, "L": 2, "saved": 0, "states": True}),
    "most rows and a context": (cross_launches, {"B": MOST, "D": 8, "T": 1, "L": 2, "C": 8, "tied": False}),
    "wide": (cross_launches, {"B": 2**24, "D": 136, "T": 2, "L": 1, "dtype": torch.float32, "states": True}),
    "many tasks": (cross_launches, {"B": 2**22, "D": 8, "T": 80, "L": 1, "C": 8}),
    "many steps": (cross_launches, {"B": 2**24, "D": 8, "T": 2, "L": 8, "saved": 2}),
    "low rank, most rows": (cross_launches, {"rank": 8, "B": MOST, "D": 8, "T": 1, "L": 2, "C": 8}),
    "low rank, most rows of an odd size": (cross_launches, {"rank": 3, "B": MOST, "D": 9, "T": 2, "L": 3, "saved": 0, "states": True}),
    "low rank, many tasks and steps": (cross_launches, {"rank": 8, "B": 2**22, "D": 8, "T": 80, "L": 3, "tied": False}),
    "gather": (gather_launches, {"rows": 2**5, "columns": 65535 * 512}),
}
"""Sizes at which 32-bit numbers would end. Their tensors have no memory. Few units and steps, so that a program ends soon."""

LARGEST = {
    **LARGE,
    "low rank, 8192 units": (cross_launches, {"rank": 256, "B": 2**22, "D": 8192, "T": 4, "L": 3, "C": 8192, "tied": False}),
    "8192 units": (cross_launches, {"B": 2**22, "D": 8192, "T": 4, "L": 3, "C": 8192}),
    "8192 units, untied, nothing kept": (cross_launches, {"B": 2**22, "D": 8192, "T": 4, "L": 3, "tied": False, "saved": 0}),
    "most tasks": (cross_launches, {"B": 70_000, "D": 8, "T": 65535, "L": 1, "C": 8}),
    "most steps": (cross_launches, {"rank": 8, "B": 2**22, "D": 64, "T": 1, "L": 65535, "C": 8, "saved": 0}),
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
        made = make(**sizes)
    assert made
    assert not [f"{launch.name}: {problem}" for launch in made for problem in excess(launch)]


def test_more_tasks_than_a_grid_has_room_for_are_refused():
    with pytest.raises(ValueError, match="private_bias: got 65536 tasks, expected at most 65535"):
        cross_launches(8, 8, 65536, 1, backward=False)


@pytest.mark.parametrize(("make", "sizes"), LARGE.values(), ids=LARGE)
def test_at_the_largest_sizes_no_32_bit_number_overflows_and_no_address_leaves_its_tensor(make, sizes):
    for launch in make(**sizes):
        run_without_memory(launch, corners(launch.grid), 2 * sizes.get("rows", 0) - 1)


@pytest.mark.parametrize("rank", [0, 5], ids=["full", "low rank"])
@pytest.mark.parametrize("options", [{"states": True}, {"tied": False, "saved": 0}], ids=["tied, every state", "untied, recomputed"])
def test_at_odd_sizes_no_program_leaves_its_tensors(options, rank):
    found = cross_launches(35, 17, 1, 3, C=3, rank=rank, **options) if rank else cross_launches(67, 33, 1, 2, C=3, **options)
    assert len({launch.name for launch in found}) == 4
    for launch in found:
        run_without_memory(launch, list(product(*map(range, (*launch.grid, 1, 1)[:3]))), 0)


@pytest.mark.parametrize("kernel", ["param_gather_rows", "param_gather_sum"])
def test_an_index_of_more_than_two_billion_values_is_read_inside_its_memory(kernel):
    for launch in gather_launches(rows=1, columns=1, tasks=2**25 + 8, gathered=64):
        if launch.name == kernel:
            run_without_memory(launch, corners(launch.grid)[-1:], 1)


@triton.jit
def _short_offsets(x, out, B, D, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at * D, tl.load(x + at * D, mask=at < B), mask=at < B)


@triton.jit
def _short_places(
    grad, order, ends, shared, private, rows, num_shared, N: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    first = tl.load(ends + row, mask=row < rows, other=0)
    for number in range(tl.max(tl.load(ends + row + 1, mask=row < rows, other=0) - first)):
        place = tl.load(order + first + number, mask=row < rows, other=0).to(tl.int32)
        tl.store(shared + row, tl.load(grad + place * N, mask=row < rows), mask=row < num_shared)


@triton.jit
def _no_mask(x, out, B, D, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    tl.store(out + at * D, tl.load(x + at * D))


def test_sums_that_number_the_places_with_32_bits_are_found():
    launch = next(launch for launch in gather_launches(rows=2**5, columns=65535 * 512) if launch.name == "param_gather_sum")
    run_without_memory(launch, corners(launch.grid), 0)
    with pytest.raises(InterpreterError, match="int32 overflow"):
        run_without_memory(replace(launch, kernel=_short_places), [(0, 0, 0)], 0)


@pytest.mark.parametrize(("kernel", "error"), [(_short_offsets, "int32 overflow"), (_no_mask, "leaves a tensor")], ids=["32 bits", "mask"])
def test_an_overflow_and_a_forgotten_mask_are_found(kernel, error):
    x = empty(2**28 + 5, 8)
    launch = Launch(kernel, (2**21 + 1,), {"x": x, "out": torch.empty_like(x), "B": x.shape[0], "D": 8, "BLOCK": 128}, {})
    run_without_memory(replace(launch, grid=(8,)), corners((8,)), 0)
    with pytest.raises(InterpreterError, match=error):
        run_without_memory(launch, corners(launch.grid), 0)
