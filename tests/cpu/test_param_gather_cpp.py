"""param_gather in C++: copies rows, and adds their gradients in a fixed order."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dcrnn_fast import backends, functional, reference

REFUSED = (ValueError, RuntimeError)  # straight through the dispatcher, PyTorch 2.15 hands a C++ exception on as the latter
pytestmark = pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason=f"no C++ kernels here: {backends.REASONS['cpp']}")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def cpp(shared, private, index):
    return functional.param_gather(shared, private, index, backend="cpp")


def banks(shared=3, private=4, tasks=2, rows=9, trailing=(5,), dtype=torch.float64):
    index = torch.randint(0, shared + private, (tasks, rows), dtype=torch.int32) if shared + private else torch.zeros(tasks, 0).int()
    return torch.randn(shared, *trailing, dtype=dtype), torch.randn(tasks, private, *trailing, dtype=dtype), index


SHAPES = {
    "vectors": {},
    "single values": {"trailing": ()},
    "matrices": {"trailing": (2, 600)},
    "nothing shared": {"shared": 0},
    "all shared": {"private": 0},
    "no rows": {"rows": 0},
    "no banks": {"shared": 0, "private": 0},
    "empty rows": {"trailing": (2, 0)},
    "five tasks, many rows": {"tasks": 5, "rows": 500, "shared": 70, "private": 90},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_are_copied_bit_for_bit(shape, dtype):
    arguments = banks(**shape, dtype=dtype)
    assert torch.equal(cpp(*arguments), reference.param_gather(*arguments))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_of_a_row_is_the_sum_over_the_places_that_read_it(shape, dtype):
    shared, private, index = (t.requires_grad_() if t.is_floating_point() else t for t in banks(**shape, dtype=dtype))
    out = cpp(shared, private, index)
    seed = torch.randn_like(out)
    exact_shared, exact_private = shared.detach().double().requires_grad_(), private.detach().double().requires_grad_()
    expected = torch.autograd.grad(reference.param_gather(exact_shared, exact_private, index), [exact_shared, exact_private], seed.double())
    for got, want in zip(torch.autograd.grad(out, [shared, private], seed), expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2 * torch.finfo(dtype).eps, atol=32 * torch.finfo(dtype).eps)


def test_gradients_match_finite_differences_with_repeated_rows():
    shared, private, index = banks()
    inputs = shared.requires_grad_(), private.requires_grad_()
    assert gradcheck(lambda s, p: cpp(s, p, index), inputs)
    assert gradgradcheck(lambda s, p: cpp(s, p, index), inputs)


def test_sums_have_the_same_bits_on_every_run_and_for_any_number_of_threads():
    *_, index = banks(shared=8, private=8, tasks=4, rows=4000)
    grad = torch.randn(4, 4000, 33)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            runs.append(torch.ops.dcrnn_fast.param_gather_backward(grad, index, 8, 8))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_strided_banks_are_read_right():
    shared, private, index = banks(trailing=(4, 6))
    expected = cpp(shared, private, index)
    strided = shared.transpose(1, 2).contiguous().transpose(1, 2), private.mT.contiguous().mT, index.T.contiguous().T
    assert torch.equal(cpp(*strided), expected)


@pytest.mark.parametrize("shape", [{}, {"trailing": ()}, {"rows": 0}, {"shared": 0}], ids=str)
def test_the_operators_pass_opcheck(shape):
    shared, private, index = banks(**shape)
    torch.library.opcheck(torch.ops.dcrnn_fast.param_gather, (shared.requires_grad_(), private.requires_grad_(), index))
    grad = torch.randn(*index.shape, *shared.shape[1:])
    torch.library.opcheck(torch.ops.dcrnn_fast.param_gather_backward, (grad, index, shared.shape[0], private.shape[1]))


def test_the_operator_refuses_what_would_read_outside_its_tensors():
    shared, private, index = banks()
    operator = torch.ops.dcrnn_fast.param_gather
    for arguments, message in (
        ((shared, private, index + 7), "index: got"),
        ((shared, private, index - 7), "index: got -"),
        ((shared, private[:1], index), "private: got shape"),
        ((shared, private[..., :4], index), "private: got shape"),
        ((shared, private.float(), index), "dtype"),
        ((shared, private, index.long()), "int32"),
    ):
        with pytest.raises(REFUSED, match=message):
            operator(*arguments)
    with pytest.raises(REFUSED, match="index: got"):
        torch.ops.dcrnn_fast.param_gather_backward(torch.randn(2, 9, 5), index, 1, 1)
