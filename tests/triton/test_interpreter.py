"""The interpreter that the tests hasten (tests/interpreter.py) gives the bits of the one that Triton has."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.runtime import interpreter

from dcrnn_fast import functional
from dcrnn_fast.kernels import INTERPRETED
from tests.interpreter import as_triton_has_it
from tests.operators.problems import cross_arguments

from ..operators.precision import results

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_outputs_and_gradients_have_the_bits_of_tritons_interpreter(dtype, rank):
    arguments = cross_arguments(batch=3, dim=5, steps=2, context_dim=2, tied=False, rank=rank, projection_share_ratio=0.5, dtype=dtype)
    seed = torch.randn(2, 3, 5)
    found = results(functional.cross_rnn, arguments, seed, backend="triton")
    with as_triton_has_it():
        expected = results(functional.cross_rnn, arguments, seed, backend="triton")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


@triton.jit
def _maximum(x):
    return tl.max(x, 0)


@triton.jit
def _numbers(out, N: tl.constexpr):
    n = tl.arange(0, N)
    tl.store(out + n, n * 2**30 * 3 + _maximum(n) + tl.sum(n, 0) + tl.zeros((N,), tl.int32))


def test_integers_that_overflow_and_functions_of_the_library_have_the_bits_of_tritons_interpreter():
    found, expected = torch.zeros(2, 4, dtype=torch.int32)
    _numbers[(1,)](found, 4)
    with as_triton_has_it():
        _numbers[(1,)](expected, 4)
    assert expected.any()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("fails", [False, True], ids=["", "in a launch that fails"])
def test_after_a_launch_the_functions_of_triton_are_its_own(fails):
    before = tl.range, tl.arange, tl.tensor.__add__
    if fails:
        with pytest.raises(interpreter.InterpreterError):
            _numbers[(1,)](torch.zeros(3, dtype=torch.int32), 3)
    else:
        _numbers[(1,)](torch.zeros(4, dtype=torch.int32), 4)
    assert (tl.range, tl.arange, tl.tensor.__add__) == before


def test_a_dtype_is_that_of_tritons_table():
    types = [tl.int1, tl.uint8, tl.int32, tl.int64, tl.float16, tl.bfloat16, tl.float32, tl.float64]
    for one in [*types, tl.pointer_type(tl.bfloat16), tl.block_type(tl.bfloat16, [4]), tl.block_type(tl.pointer_type(tl.int8), [2])]:
        with as_triton_has_it():
            expected = interpreter._get_np_dtype(one)
        assert interpreter._get_np_dtype(one) == expected, one
        assert isinstance(expected, np.dtype)


@pytest.mark.parametrize(("given", "wanted"), [(tl.bfloat16, tl.float32), (tl.float32, tl.bfloat16)], ids=str)
def test_a_float_becomes_another_one_with_the_bits_of_tritons_interpreter(given, wanted):
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    values = every if given == tl.bfloat16 else (every.astype(np.uint32) << 16) + 0x8001
    for some in (values, values[:, ::2], values[:1, :1], values[1:127], values[130:256, 1::3]):
        with as_triton_has_it():
            expected = interpreter._convert_float(some, given, wanted, None)
        found = interpreter._convert_float(some, given, wanted, None)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
