"""param_gather in CUDA C++: copies rows, and adds their gradients in a fixed order."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dcrnn_fast import backends, functional, reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def gather(shared, private, index):
    return functional.param_gather(shared, private, index, backend="cuda")


def banks(cuda, shared=3, private=4, tasks=2, rows=9, trailing=(5,), dtype=torch.float64):
    index = torch.randint(0, shared + private, (tasks, rows), dtype=torch.int32) if shared + private else torch.zeros(tasks, 0).int()
    values = torch.randn(shared, *trailing, dtype=dtype), torch.randn(tasks, private, *trailing, dtype=dtype)
    return *(bank.to(cuda.device) for bank in values), index.to(cuda.device)


SHAPES = {
    "vectors": {},
    "single values": {"trailing": ()},
    "rows of 16-byte words": {"trailing": (2, 24)},
    "rows of 8-byte words": {"trailing": (12,)},
    "matrices wider than a program": {"trailing": (2, 600)},
    "nothing shared": {"shared": 0},
    "all shared": {"private": 0},
    "no rows": {"rows": 0},
    "no banks": {"shared": 0, "private": 0},
    "empty rows": {"trailing": (2, 0)},
    "many rows": {"rows": 1100, "shared": 7, "private": 9},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_are_copied_bit_for_bit(cuda, shape, dtype):
    arguments = banks(cuda, **shape, dtype=dtype)
    assert torch.equal(gather(*arguments), reference.param_gather(*arguments))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_of_a_row_is_the_sum_over_the_places_that_read_it(cuda, shape, dtype):
    shared, private, index = (t.requires_grad_() if t.is_floating_point() else t for t in banks(cuda, **shape, dtype=dtype))
    out = gather(shared, private, index)
    seed = torch.randn_like(out)
    exact_shared, exact_private = shared.detach().double().requires_grad_(), private.detach().double().requires_grad_()
    expected = torch.autograd.grad(reference.param_gather(exact_shared, exact_private, index), [exact_shared, exact_private], seed.double())
    for got, want in zip(torch.autograd.grad(out, [shared, private], seed), expected, strict=True):
        # sums over up to a few hundred values in float32, rounded once
        torch.testing.assert_close(got.double(), want, rtol=2 * torch.finfo(dtype).eps, atol=256 * torch.finfo(dtype).eps)


def test_gradients_match_finite_differences_with_repeated_rows(cuda):
    shared, private, index = banks(cuda)
    inputs = shared.requires_grad_(), private.requires_grad_()
    assert gradcheck(lambda s, p: gather(s, p, index), inputs, fast_mode=cuda.device == "cpu")
    assert gradgradcheck(lambda s, p: gather(s, p, index), inputs, fast_mode=cuda.device == "cpu")


def test_sums_are_those_of_the_cpu_kernels_bit_for_bit(cuda):
    """Both add by task, then by row."""
    if backends.REASONS["cpp"] is not None:
        pytest.skip(f"no C++ kernels here: {backends.REASONS['cpp']}")
    shared, private, index = (t.requires_grad_() if t.is_floating_point() else t for t in banks(cuda, rows=50, dtype=torch.float32))
    seed = torch.randn(2, 50, 5, device=cuda.device)
    got = torch.autograd.grad(gather(shared, private, index), [shared, private], seed)
    ours = [t.detach().cpu().requires_grad_(t.is_floating_point()) for t in (shared, private, index)]
    want = torch.autograd.grad(functional.param_gather(*ours, backend="cpp"), ours[:2], seed.cpu())
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.cpu(), b)


def test_strided_banks_are_read_right(cuda):
    shared, private, index = banks(cuda, trailing=(4, 6))
    expected = gather(shared, private, index)
    strided = shared.transpose(1, 2).contiguous().transpose(1, 2), private.mT.contiguous().mT, index.T.contiguous().T
    assert torch.equal(gather(*strided), expected)


def test_a_row_number_out_of_range_is_an_index_error(cuda):
    shared, private, index = banks(cuda)
    with pytest.raises(IndexError, match="index: got"):
        gather(shared, private, index + 7)


def test_a_row_number_out_of_range_that_no_check_saw_makes_its_row_nan(cuda):
    shared, private, index = banks(cuda)
    clean = gather(shared, private, index)
    index[1, 4], index[0, 2] = 7, -1
    got = cuda.operators.param_gather(shared, private, index)
    assert torch.isnan(got[1, 4]).all()
    assert torch.isnan(got[0, 2]).all()
    got[1, 4], got[0, 2] = clean[1, 4], clean[0, 2]
    assert torch.equal(got, clean)


def test_more_rows_than_an_index_can_name_are_refused(cuda):
    grad, index = torch.zeros(1, 4, 0, device=cuda.device), torch.zeros(1, 4, dtype=torch.int32, device=cuda.device)
    with pytest.raises((RuntimeError, ValueError), match="rows, expected at most 2147483647 together"):
        cuda.library.param_gather_backward(grad, index, 2**31, 0)


def test_the_rows_of_a_wide_bank_are_dealt_to_blocks_and_warps_without_a_gap(cuda):
    """More values than a block owns, and no multiple of them."""
    shared, private, index = (
        t.requires_grad_() if t.is_floating_point() else t for t in banks(cuda, trailing=(1100,), dtype=torch.float32)
    )
    seed = torch.randn(2, 9, 1100, device=cuda.device)
    got = torch.autograd.grad(gather(shared, private, index), [shared, private], seed)
    for a, b in zip(got, torch.autograd.grad(reference.param_gather(shared, private, index), [shared, private], seed), strict=True):
        torch.testing.assert_close(a, b)
