"""A GPU runs the programs of a launch in any order. Every kernel gives the same bits with its programs in reverse."""

from contextlib import contextmanager
from itertools import product

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.runtime import interpreter

from dcrnn_fast import functional
from dcrnn_fast.kernels import INTERPRETED, common
from tests.operators.problems import cross_arguments, differentiable

pytestmark = [pytest.mark.skipif(not INTERPRETED, reason="of the interpreter"), pytest.mark.usefixtures("poisoned_memory")]


@contextmanager
def backwards():
    """Inside the block, interpreted kernels run their last program first."""
    builder = interpreter.interpreter_builder
    set_grid_dim, set_grid_idx, waiting = builder.set_grid_dim, builder.set_grid_idx, []

    def remember(*grid):
        set_grid_dim(*grid)
        waiting[:] = product(*map(range, grid))

    builder.set_grid_dim, builder.set_grid_idx = remember, lambda *program: set_grid_idx(*waiting.pop())
    try:
        yield
    finally:
        del builder.set_grid_dim, builder.set_grid_idx


def check_order(run, tensors):
    """The output and the gradients; memory that nobody writes holds NaN."""

    def results():
        out = run()
        seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
        return out.detach(), *torch.autograd.grad(out, tensors, seed)

    expected = results()
    with backwards():
        found = results()
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(one, other), f"result {number} differs"


@pytest.mark.parametrize(("recompute", "rank"), [(True, None), (False, None), (True, 5)], ids=["recomputed", "saved", "low rank"])
def test_cross_rnn_and_its_gradients_have_the_same_bits_in_any_order(recompute, rank, monkeypatch):
    monkeypatch.setattr(common, "INTERPRETED_TILE", common.Tile(16, 16, 16, 4, 1))  # several programs in each dimension of a grid
    arguments = cross_arguments(
        batch=34 if rank is None else 18, dim=18, steps=2, context_dim=3, rank=rank, tied=not recompute, dtype=torch.float32
    )
    options = {"return_states": recompute, "recompute": recompute, "backend": "triton"}
    check_order(lambda: functional.cross_rnn(**arguments, **options), list(differentiable(arguments).values()))


def test_param_gather_and_its_sums_have_the_same_bits_in_any_order():
    banks = [torch.randn(*shape, 1030).requires_grad_() for shape in ((3,), (2, 4))]
    index = torch.randint(0, 7, (2, 9), dtype=torch.int32)
    check_order(lambda: functional.param_gather(*banks, index, backend="triton"), banks)


@triton.jit
def _reads_what_another_program_wrote(x):
    tl.store(x, 2 * tl.load(x) + tl.program_id(0))


def test_a_kernel_that_depends_on_the_order_of_its_programs_is_found():
    usual, other = torch.zeros(1), torch.zeros(1)
    _reads_what_another_program_wrote[(5,)](usual)
    with backwards():
        _reads_what_another_program_wrote[(5,)](other)
    assert usual != other
