"""param_gather on every backend: copies rows, and adds their gradients in a fixed order."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dcrnn_fast import functional, reference
from dcrnn_fast.ops import backends
from dcrnn_fast.support.accuracy import relative_error

from .backend import DTYPES, on, on_every_backend, on_gpu_kernels, on_kernels


def banks(backend, shared=3, private=4, tasks=2, rows=9, trailing=(5,), dtype=torch.float64):
    index = torch.randint(0, shared + private, (tasks, rows), dtype=torch.int32) if shared + private else torch.zeros(tasks, 0).int()
    values = torch.randn(shared, *trailing, dtype=dtype), torch.randn(tasks, private, *trailing, dtype=dtype)
    return *(bank.to(backend.device) for bank in values), index.to(backend.device)


def gradients(run, arguments, seed):
    shared, private, index = arguments
    inputs = shared.detach().requires_grad_(), private.detach().requires_grad_()
    return torch.autograd.grad(run(*inputs, index), inputs, seed)


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
    "five tasks, many rows": {"tasks": 5, "rows": 300, "shared": 30, "private": 40},
    "more rows than a program searches at once": {"rows": 1100, "shared": 7, "private": 9},
}


@on_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_are_copied_bit_for_bit(backend, shape, dtype):
    arguments = banks(backend, **shape, dtype=dtype)
    assert torch.equal(backend.param_gather(*arguments), reference.param_gather(*arguments))


@on_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_of_a_row_is_the_sum_over_the_places_that_read_it(backend, shape, dtype):
    shared, private, index = arguments = banks(backend, **shape, dtype=dtype)
    seed = torch.randn_like(backend.param_gather(*arguments))
    expected = gradients(reference.param_gather, (shared.double(), private.double(), index), seed.double())
    # the values are of order 1: sums of up to a few hundred in float32, rounded once
    atol = (256 if shape.get("rows") == 1100 else 32) * torch.finfo(dtype).eps
    for got, want in zip(gradients(backend.param_gather, arguments, seed), expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2 * torch.finfo(dtype).eps, atol=atol)


@on_every_backend
def test_gradients_match_finite_differences_with_repeated_rows(backend):
    shared, private, index = banks(backend)
    inputs, fast = (shared.requires_grad_(), private.requires_grad_()), backend.is_slow
    assert gradcheck(lambda s, p: backend.param_gather(s, p, index), inputs, fast_mode=fast)
    assert gradgradcheck(lambda s, p: backend.param_gather(s, p, index), inputs, fast_mode=fast)


@on_kernels
def test_the_rows_of_a_wide_bank_are_covered_without_a_gap(backend):
    """More values than a program owns, and no multiple of them."""
    arguments = banks(backend, trailing=(1100,), dtype=torch.float32)
    seed = torch.randn(2, 9, 1100, device=backend.device)
    expected = gradients(reference.param_gather, arguments, seed)
    for got, want in zip(gradients(backend.param_gather, arguments, seed), expected, strict=True):
        torch.testing.assert_close(got, want)


@on_kernels
def test_strided_banks_are_read_right(backend):
    shared, private, index = banks(backend, trailing=(4, 6))
    expected = backend.param_gather(shared, private, index)
    strided = shared.transpose(1, 2).contiguous().transpose(1, 2), private.mT.contiguous().mT, index.T.contiguous().T
    assert torch.equal(backend.param_gather(*strided), expected)


@on("cpp")
def test_sums_have_the_same_bits_on_every_run_and_for_any_number_of_threads(backend):
    *_, index = banks(backend, shared=8, private=8, tasks=4, rows=4000)
    grad = torch.randn(4, 4000, 33)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            runs.append(backend.operators.param_gather_backward(grad, index, 8, 8))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@on_gpu_kernels
def test_sums_are_those_of_the_cpu_kernels_bit_for_bit(backend):
    """Every backend adds by task, then by row."""
    if backends.REASONS["cpp"] is not None:
        pytest.skip(f"no C++ kernels here: {backends.REASONS['cpp']}")
    arguments = banks(backend, rows=50, dtype=torch.float32)
    seed = torch.randn(2, 50, 5, device=backend.device)
    want = gradients(lambda *given: functional.param_gather(*given, backend="cpp"), [tensor.cpu() for tensor in arguments], seed.cpu())
    for a, b in zip(gradients(backend.param_gather, arguments, seed), want, strict=True):
        assert torch.equal(a.cpu(), b)


@on_gpu_kernels
def test_a_row_number_out_of_range_that_no_check_saw_makes_its_row_nan(backend):
    shared, private, index = banks(backend)
    clean = backend.param_gather(shared, private, index)
    index[1, 4], index[0, 2] = 7, -1
    got = backend.operators.param_gather(shared, private, index)
    assert torch.isnan(got[1, 4]).all()
    assert torch.isnan(got[0, 2]).all()
    got[1, 4], got[0, 2] = clean[1, 4], clean[0, 2]
    assert torch.equal(got, clean)


@on_gpu_kernels
def test_a_row_number_out_of_range_that_no_check_saw_reaches_no_gradient(backend):
    *_, index = banks(backend)
    grad = torch.randn(2, 9, 5, device=backend.device)
    wrong = (0, 2), (0, 7), (1, 4), (1, 8)
    for place, value in zip(wrong, (7, -1, 2**31 - 1, -(2**31)), strict=True):
        index[place] = value
    got = backend.operators.param_gather_backward(grad, index, 3, 4)
    for place in wrong:
        index[place], grad[place] = 0, 0
    for a, b in zip(got, backend.operators.param_gather_backward(grad, index, 3, 4), strict=True):
        assert torch.equal(a, b)


@on_kernels
def test_a_row_that_no_place_reads_has_a_gradient_of_zero_in_every_dtype(backend):
    index = torch.zeros(1, 2, dtype=torch.int32, device=backend.device)
    for dtype in DTYPES:
        grad = torch.randn(1, 2, 3, device=backend.device).to(dtype)
        shared, private = backend.operators.param_gather_backward(grad, index, 3, 2)
        assert not shared[1:].any(), f"{dtype}: {shared[1:]}"
        assert not private.any(), f"{dtype}: {private}"


@on("cpp")
def test_the_sum_over_many_places_is_as_exact_as_plain_pytorch(backend):
    """Gradients of equal sign: a long chain of additions would round every one of them in the size of the whole sum."""
    shared, private = torch.randn(1, 31), torch.randn(3, 1, 31)
    index = torch.zeros(3, 186, dtype=torch.int32)
    errors = []
    for _ in range(9):
        seed = torch.rand(3, 186, 31)
        exact, _ = gradients(reference.param_gather, (shared.double(), private.double(), index), seed.double())
        runs = backend.param_gather, reference.param_gather
        errors.append([relative_error(gradients(run, (shared, private, index), seed)[0], exact) for run in runs])
    fast, plain = torch.tensor(errors).square().mean(0).sqrt()
    assert fast <= 2 * plain, f"relative error {fast:.1e}, plain PyTorch {plain:.1e}"


@on_kernels
def test_more_rows_than_a_bank_may_have_are_refused(backend):
    grad, index = torch.zeros(1, 4, 0, device=backend.device), torch.zeros(1, 4, dtype=torch.int32, device=backend.device)
    with pytest.raises((RuntimeError, ValueError), match="rows, expected 0 to 16777216 each"):
        backend.operators.param_gather_backward(grad, index, 2**24 + 1, 1)


@on_kernels
def test_an_index_into_banks_without_rows_is_refused(backend):
    """There is no row that a stray number could read in the place of its own."""
    empty, index = torch.zeros(0, 3, device=backend.device), torch.zeros(2, 4, dtype=torch.int32, device=backend.device)
    with pytest.raises((RuntimeError, ValueError, IndexError), match="index: got values, expected none: the banks have no rows"):
        backend.operators.param_gather(empty, empty.new_zeros(2, 0, 3), index)
