"""The recurrence on every backend: as exact as plain PyTorch, forward and backward, and nothing read that is not its own."""

from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from dcrnn_fast import reference

from .backend import CHOICES, DTYPES, on, on_every_backend, on_every_kernel, on_kernels
from .precision import assert_as_exact_as_plain_pytorch, cast, relative_error, results
from .problems import CPU_SHAPES, DOUBLE, SHAPES, arguments_of, cross_arguments, differentiable, expanded, strided

full_and_low_rank = pytest.mark.parametrize("rank", [None, 5], ids=["full", "low rank"])
float32_and_bfloat16 = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

NAMES = [(backend, name) for backend in ("cpp", "triton", "cuda") for name in SHAPES] + [("cpp", name) for name in CPU_SHAPES]
RECOMPUTED = "one step", "six steps", "wide context, untied", "low rank, projection shared in part"
VARIANTS = [(cell, return_states) for cell in ("gated", "cross") for return_states in (False, True)]


def check(backend, shape, dtype, **options):
    # states of six steps grow fast, and one row has few values: the median of a few draws is luck; less so in 16 bits, of which the bound
    # allows a rounding
    few = shape.get("batch") == 1 and backend.name != "triton"  # whose interpreter takes seconds for a draw
    draws = None if not backend.is_slow else 9 if shape.get("steps") == 6 or few else 1 if dtype.itemsize == 2 else 3
    assert_as_exact_as_plain_pytorch(arguments_of(backend, **shape), dtype, backend=backend.name, draws=draws, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("backend", "name"), NAMES, indirect=["backend"])
def test_outputs_and_gradients_are_as_exact_as_plain_pytorch(backend, name, dtype):
    """Every shape in every dtype and in a fourth of the variants, and every dtype in every variant."""
    every, number = SHAPES | CPU_SHAPES, list(SHAPES | CPU_SHAPES).index(name)
    if backend.is_slow and dtype is (torch.float64, torch.float16)[number % 2]:
        pytest.skip("float64 and float16 by turns: GPU kernels are slow on a CPU")
    cell, return_states = ("gated", False) if backend.is_slow else VARIANTS[(DTYPES.index(dtype) + number) % 4]
    check(backend, {"cell": cell, **every[name]}, dtype, return_states=return_states)


@on(*CHOICES["cuda"])
@float32_and_bfloat16
@pytest.mark.parametrize("name", ["one row", "rows of 8 values", "wide context, untied"])
def test_every_kernel_is_as_exact(backend, name, dtype):
    check(backend, SHAPES[name], dtype)


@on_every_kernel
@pytest.mark.parametrize("shape", [{"cell": "cross"}, {"context_dim": 3, "tied": False}, {"context_dim": 3, "rank": 5}], ids=str)
@float32_and_bfloat16
def test_every_state_and_its_gradients_are_as_exact(backend, dtype, shape):
    check(backend, shape, dtype, return_states=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("backend", "name"), [pair for pair in NAMES if "cpp" in pair or pair[1] in RECOMPUTED], indirect=["backend"])
def test_recomputing_the_activations_is_as_exact(backend, name, dtype):
    if backend.is_slow and dtype in (DOUBLE, torch.float16):
        pytest.skip("GPU kernels are slow on a CPU")
    check(backend, (SHAPES | CPU_SHAPES)[name], dtype, recompute=True, return_states=name == "six steps")


@on_kernels
@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("rank", [None, 2], ids=["full", "low rank"])
def test_gradients_match_finite_differences(backend, rank, tied, cell, return_states, recompute):
    if backend.is_slow and (recompute != return_states or (cell == "cross") == tied):
        pytest.skip("a quarter of the combinations: GPU kernels are slow on a CPU")
    size = 2 if backend.is_slow else 3
    shape = {"batch": size, "dim": size, "steps": 2, "context_dim": size - 1}
    arguments = arguments_of(backend, **shape, cell=cell, tied=tied, rank=rank, projection_share_ratio=0.5)
    inputs = differentiable(arguments)

    def run(*values):
        changed = {**arguments, **dict(zip(inputs, values, strict=True))}
        return backend.cross_rnn(**changed, return_states=return_states, recompute=recompute)

    assert gradcheck(run, tuple(inputs.values()), fast_mode=backend.is_slow)


@on_every_backend
@pytest.mark.parametrize("return_states", [False, True])
@full_and_low_rank
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(backend, rank, return_states):
    arguments = arguments_of(backend, batch=0, dim=5, context_dim=2, rank=rank)
    inputs = differentiable(arguments)
    out = backend.cross_rnn(**arguments, return_states=return_states)
    assert out.shape == ((2, 4, 0, 5) if return_states else (2, 0, 5))
    for name, gradient in zip(inputs, torch.autograd.grad(out.sum(), list(inputs.values())), strict=True):
        assert gradient.shape == inputs[name].shape, name
        assert torch.count_nonzero(gradient) == 0, name


@on_kernels
@full_and_low_rank
def test_strided_inputs_and_gradients_give_the_bits_of_contiguous_ones(backend, rank):
    arguments = arguments_of(backend, batch=70, context_dim=2, rank=rank)
    transposed = torch.randn(17, 70, 2, dtype=DOUBLE, device=backend.device).permute(2, 1, 0)
    for change, seed in ((strided, transposed), (expanded, expanded(transposed))):
        given = {name: change(value) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
        contiguous = {name: value.contiguous() if isinstance(value, torch.Tensor) else value for name, value in given.items()}
        expected = results(backend.cross_rnn, contiguous, seed.contiguous())
        for name, value in results(backend.cross_rnn, given, seed).items():
            assert torch.equal(value, expected[name]), name


FAST = [(name, dtype) for name in ("reference", "cpp") for dtype in DTYPES]
SLOW = [(name, dtype) for name in ("triton", "cuda") for dtype in (torch.float32, torch.bfloat16)]


@full_and_low_rank
@pytest.mark.parametrize(("backend", "dtype"), FAST + SLOW, indirect=["backend"], ids=str)
def test_outputs_and_gradients_have_the_same_bits_on_every_run(backend, dtype, rank):
    batch, dim, runs = (40, 20, 1) if backend.is_slow else (300, 32, 3)
    arguments = arguments_of(backend, batch=batch, dim=dim, tasks=3, context_dim=3, rank=rank)
    seed = torch.randn(3, batch, dim, dtype=DOUBLE, device=backend.device)
    first = results(backend.cross_rnn, cast(arguments, dtype), seed)
    for _ in range(runs):
        for name, value in results(backend.cross_rnn, cast(arguments, dtype), seed).items():
            assert torch.equal(value, first[name]), f"{name} differs between runs"


@on_every_kernel
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@full_and_low_rank
def test_a_value_that_is_no_number_stays_in_its_row(backend, rank, value):
    arguments = cast(arguments_of(backend, rank=rank), torch.float32)
    clean = backend.cross_rnn(**arguments)
    arguments["x0"][3, 2] = value
    got = backend.cross_rnn(**arguments)
    assert not torch.isfinite(got[:, 3]).all()
    rest = [row for row in range(20) if row != 3]
    assert torch.equal(got[:, rest], clean[:, rest])


@on_kernels
@pytest.mark.parametrize(("rank", "recompute"), [(None, False), (None, True), (4, False)], ids=["saved", "recomputed", "low rank"])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_rows_that_a_kernel_adds_to_a_small_batch_reach_no_gradient(backend, batch, rank, recompute):
    """Infinite weights close a gate for good, and the gradients are finite. In a row of zeros such a gate is 0 * inf = NaN."""
    arguments = cast(arguments_of(backend, batch=batch, steps=1, share_ratio=0, rank=rank), torch.float32)
    arguments["x0"].abs_().add_(0.1)
    if rank:
        arguments["shared_projection"].abs_().add_(0.1)  # y > 0
    arguments["private_weight"][:, :, 3, 1] = -torch.inf
    gradients = []
    for run in (reference.cross_rnn, partial(backend.cross_rnn, recompute=recompute)):
        inputs = cast(arguments, torch.float32)
        weights = inputs["private_weight"].requires_grad_(), inputs["private_bias"].requires_grad_()
        gradients.append(torch.autograd.grad(run(**inputs).sum(), weights))
    assert all(torch.isfinite(gradient).all() for gradient in gradients[0])
    torch.testing.assert_close(*reversed(gradients))


@on_kernels
def test_gates_saturate_without_overflow(backend):
    arguments = cast(arguments_of(backend), torch.float32)
    for bias in ("shared_bias", "private_bias"):
        arguments[bias] *= 1e4
    exact = reference.cross_rnn(**cast(arguments, DOUBLE))
    plain = relative_error(reference.cross_rnn(**arguments), exact)
    assert relative_error(backend.cross_rnn(**arguments), exact) <= max(2 * plain, torch.finfo(torch.float32).eps)


NANS = {
    torch.float32: (torch.int32, (0x7FFFFFFF, -1, 0x7FC00001, 0x7F800001, 0xFF812345 - 2**32)),
    DOUBLE: (torch.int64, (2**63 - 1, -1, 0x7FF8000000000001, 0x7FF0000000000001, 0xFFF123456789ABCD - 2**64)),
}
"""Of either sign, quiet and signalling, with other bits set: the exponential adds to the exponent, and must make a number of none."""


@on_kernels
@pytest.mark.parametrize("dtype", NANS, ids=str)
def test_a_gate_that_is_any_nan_is_nan(backend, dtype):
    arguments = cast(arguments_of(backend, batch=3, steps=1, share_ratio=0), dtype)
    integer, patterns = NANS[dtype]
    for bits in patterns:
        arguments["private_bias"][..., 1] = torch.tensor(bits, dtype=integer).view(dtype)
        assert backend.cross_rnn(**arguments).isnan().all(), hex(bits)


@on_kernels
def test_a_closed_gate_passes_nothing_however_large(backend):
    arguments = cast(arguments_of(backend, steps=1, share_ratio=0), torch.float32)
    arguments["private_bias"][..., 0], arguments["private_bias"][..., 1] = 3e38, -300
    assert torch.equal(backend.cross_rnn(**arguments), arguments["x0"].expand(2, -1, -1))


@on_kernels
@pytest.mark.parametrize("batch", [1, 20])
def test_float16_overflows_no_sooner_with_a_context_than_plain_pytorch(backend, batch):
    """The context's part of a product is beyond float16, and the whole product is not."""
    arguments = cast(arguments_of(backend, batch=batch, steps=1, share_ratio=0, context_dim=1), torch.float16)
    arguments["private_weight"].zero_()[..., :2] = torch.tensor([1000.0, -1000.0])
    arguments["context"].fill_(100), arguments["x0"][:, 0].fill_(100)
    expected = reference.cross_rnn(**cast(arguments, DOUBLE))
    assert torch.isfinite(reference.cross_rnn(**arguments)).all()
    torch.testing.assert_close(backend.cross_rnn(**arguments).double(), expected, rtol=0.01, atol=0.01)


@on_kernels
@pytest.mark.parametrize("rows", [3, 300])
def test_under_autocast_every_thread_computes_in_bfloat16(backend, rows):
    """The same bits as on inputs that are cast by hand: neither the calling thread nor a worker casts anything itself."""
    rows = min(rows, 20) if backend.is_slow else rows
    arguments = cast(backend.of(cross_arguments(batch=rows, dim=32, context_dim=3)), torch.float32)
    seed = torch.randn(2, rows, 32, dtype=DOUBLE, device=backend.device)
    expected = results(backend.cross_rnn, cast(arguments, torch.bfloat16), seed)
    with torch.autocast(backend.device, torch.bfloat16):
        got = results(backend.cross_rnn, arguments, seed)
    assert got["out"].dtype == torch.bfloat16
    for name, value in got.items():
        assert torch.equal(value.to(torch.bfloat16), expected[name]), name
