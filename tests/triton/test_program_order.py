"""A GPU runs the programs of a launch in any order. Every kernel gives the same bits with its programs in reverse and in a random order."""

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

from dcrnn_fast import functional
from dcrnn_fast.kernels import INTERPRETED
from tests.operators.problems import cross_arguments, differentiable

from .programs import backwards, ordered, shuffled, small_tiles

pytestmark = [pytest.mark.skipif(not INTERPRETED, reason="of the interpreter"), pytest.mark.usefixtures("poisoned_memory")]


def results(run, tensors):
    """The output, and the gradients of ``tensors``; memory that nobody writes holds NaN."""
    out = run()
    seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return out.detach(), *torch.autograd.grad(out, tensors, seed)


def check_orders(run, tensors):
    expected = results(run, tensors)
    for order in (backwards, shuffled):
        with ordered(order):
            found = results(run, tensors)
        for name, one, other in zip(("out", *map(str, range(len(tensors)))), found, expected, strict=True):
            assert torch.equal(one, other), f"{name} differs, programs {order.__name__}"


@pytest.mark.parametrize("recompute", [True, False])
def test_cross_rnn_and_its_gradients_have_the_same_bits_in_any_order(recompute):
    arguments = cross_arguments(batch=34, dim=18, steps=2, context_dim=3, tied=not recompute, dtype=torch.float32)

    def run():
        return functional.cross_rnn(**arguments, return_states=recompute, recompute=recompute, backend="triton")

    with small_tiles():
        check_orders(run, list(differentiable(arguments).values()))


def test_the_low_rank_cell_and_its_gradients_have_the_same_bits_in_any_order():
    arguments = cross_arguments(batch=18, dim=18, context_dim=3, rank=5, tied=False, dtype=torch.float32)

    def run():
        return functional.cross_rnn(**arguments, return_states=True, recompute=True, backend="triton")

    with small_tiles():
        check_orders(run, list(differentiable(arguments).values()))


def test_param_gather_and_its_sums_have_the_same_bits_in_any_order():
    generator = torch.Generator().manual_seed(0)
    banks = [torch.randn(*shape, 1030, generator=generator).requires_grad_() for shape in ((3,), (2, 4))]
    index = torch.randint(0, 7, (2, 9), generator=generator, dtype=torch.int32)
    check_orders(lambda: functional.param_gather(*banks, index, backend="triton"), banks)


@triton.jit
def _reads_what_another_program_wrote(x):
    tl.store(x, 2 * tl.load(x) + tl.program_id(0))


@pytest.mark.parametrize("order", [backwards, shuffled], ids=lambda order: order.__name__)
def test_a_kernel_that_depends_on_the_order_of_its_programs_is_found(order):
    usual, other = torch.zeros(1), torch.zeros(1)
    _reads_what_another_program_wrote[(5,)](usual)
    with ordered(order):
        _reads_what_another_program_wrote[(5,)](other)
    assert usual != other
