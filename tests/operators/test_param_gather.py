"""param_gather on every backend: copies rows, and adds their gradients in a fixed order."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dcrnn_fast import reference
from dcrnn_fast.support.accuracy import relative_error

from .backend import DTYPES, on, on_every_backend, on_gpu_kernels, on_kernels
from .problems import strided


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
    "one row that is read": {"rows": 1, "tasks": 1},
    "single values": {"trailing": ()},
    "rows of 16-byte words": {"trailing": (2, 24)},
    "rows of 8-byte words": {"trailing": (12,)},
    "matrices wider than a program": {"trailing": (2, 600)},
    "a width that is no multiple of a program's": {"trailing": (1100,)},
    "nothing shared": {"shared": 0},
    "all shared": {"private": 0},
    "no rows": {"rows": 0},
    "no banks": {"shared": 0, "private": 0},
    "empty rows": {"trailing": (2, 0)},
    "five tasks, many rows": {"tasks": 5, "rows": 300, "shared": 30, "private": 40},
    "more rows than a program searches at once": {"rows": 1100, "shared": 7, "private": 9},
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@on_kernels
@dtypes
@shapes
def test_rows_are_copied_bit_for_bit(backend, shape, dtype):
    arguments = banks(backend, **shape, dtype=dtype)
    assert torch.equal(backend.param_gather(*arguments), reference.param_gather(*arguments))


@on_kernels
@dtypes
@shapes
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
def test_strided_banks_are_read_right(backend):
    arguments = banks(backend, trailing=(4, 6))
    expected = backend.param_gather(*arguments)
    for change in (strided, lambda tensor: tensor.mT.contiguous().mT):
        assert torch.equal(backend.param_gather(*map(change, arguments)), expected)


@on("cpp")
@pytest.mark.parametrize("shared", [8, 2000], ids=["sums that stay in the cache", "lists of places"])
def test_sums_have_the_same_bits_for_any_number_of_threads(backend, shared):
    *_, index = banks(backend, shared=shared, private=8, tasks=4, rows=4000)
    grad = torch.randn(4, 4000, 33)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            runs.append(backend.operators.param_gather_backward(grad, index, shared, 8))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


ORDERED = {
    "a few rows": (3, 4, 50, 7),
    "more bank rows than a block owns": (1100, 1030, 700, 2130),
    "many places for each bank row": (3, 2, 3000, 5),
    "one bank row is read by every place": (3, 2, 600, 1),
    "no private rows": (300, 0, 100, 300),
    "no shared rows": (0, 300, 100, 300),
}


@on_kernels
@pytest.mark.parametrize("sizes", ORDERED.values(), ids=ORDERED)
def test_gradients_are_added_by_task_then_by_row(backend, sizes):
    """In two runs, whichever lists of places a kernel makes first."""
    shared, private, rows, below = sizes
    if backend.name == "cpp" or (rows >= 100 and backend.name == "triton" and backend.is_slow):
        pytest.skip("C++ adds in parts or in float64; lists of places for which Triton's interpreter would take minutes")
    index, grad = torch.randint(0, below, (2, rows), dtype=torch.int32), torch.randn(2, rows, 2)
    want = np.zeros((shared + 2 * private, 2), dtype=np.float32)
    bank_rows = np.where(index.numpy() < shared, index.numpy(), index.numpy() + np.arange(2)[:, None] * private)
    np.add.at(want, bank_rows, grad.numpy())  # one by one, in this order
    for _ in range(2):
        got = backend.operators.param_gather_backward(grad.to(backend.device), index.to(backend.device), shared, private)
        assert torch.equal(got[0].cpu(), torch.from_numpy(want[:shared]))
        assert torch.equal(got[1].cpu().flatten(0, 1), torch.from_numpy(want[shared:]))


@on("cpp")
@pytest.mark.parametrize("width", [1, 2, 8, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_of_few_rows_that_many_places_read_are_rounded_once(backend, dtype, width):
    index, grad = torch.randint(0, 9, (2, 5000), dtype=torch.int32), torch.randn(2, 5000, width).to(dtype)
    want = torch.zeros(6 + 2 * 3, width, dtype=torch.float64)
    bank_rows = torch.where(index < 6, index, index + torch.tensor([[0], [3]]))
    want.index_add_(0, bank_rows.flatten(), grad.double().flatten(0, 1))
    shared, private = backend.operators.param_gather_backward(grad, index, 6, 3)
    assert torch.equal(torch.cat([shared, private.flatten(0, 1)]), want.to(dtype))


@on_gpu_kernels
def test_a_row_number_that_no_check_saw_gives_nan_and_no_gradient(backend):
    shared, private, index = banks(backend)
    clean, right = backend.param_gather(shared, private, index), index.clone()
    wrong = (0, 2), (0, 7), (1, 4), (1, 8)
    for place, value in zip(wrong, (7, -1, 2**31 - 1, -(2**31)), strict=True):
        index[place] = value
    got, grad = backend.operators.param_gather(shared, private, index), torch.randn_like(clean)
    sums = backend.operators.param_gather_backward(grad, index, 3, 4)
    for place in wrong:
        assert torch.isnan(got[place]).all()
        got[place], grad[place] = clean[place], 0
    assert torch.equal(got, clean)
    for a, b in zip(sums, backend.operators.param_gather_backward(grad, right, 3, 4), strict=True):
        assert torch.equal(a, b)


@on_every_backend
def test_an_index_is_read_at_each_call(backend):
    """None is remembered as right: it may change, also where PyTorch does not count its versions."""
    shared, private, index = banks(backend)
    with torch.inference_mode():
        index = index.clone()
        backend.param_gather(shared, private, index)
        index[1, 4] = 7
        with pytest.raises(IndexError, match="index: got 7, expected"):
            backend.param_gather(shared, private, index)


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
