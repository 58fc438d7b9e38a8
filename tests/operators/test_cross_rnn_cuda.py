"""The recurrence in CUDA C++: what it alone has, tf32, vectorised loads, and kernels whose choice changes no bit."""

import pytest
import torch

from .backend import CHOICES, every_gradient, on
from .precision import assert_as_exact_as_plain_pytorch, cast, float32_precision
from .problems import SHAPES, arguments_of, cross_arguments

pytestmark = on("cuda")
KERNELS = CHOICES["cuda"]


def check_tf32(backend, shape):
    """tf32 has no peer on a CPU. Its ceiling is 2e-3, and for six steps float16's, whose significand is as long."""
    six_steps = shape.get("steps") == 6
    draws, ceiling = (9, 8e-3) if six_steps else (3, 2e-3)
    with float32_precision("tf32"):
        assert_as_exact_as_plain_pytorch(arguments_of(backend, **shape), torch.float32, backend="cuda", draws=draws, ceiling=ceiling)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tf32_stays_within_its_ceiling(backend, shape):
    check_tf32(backend, shape)


@pytest.mark.parametrize("choice", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("name", ["one row", "rows of 8 values", "wide context, untied", "low rank, untied with a context"])
def test_every_kernel_stays_within_the_ceiling_of_tf32(backend, name, choice):
    with backend.kernel_override(**choice):
        check_tf32(backend, SHAPES[name])


def test_several_large_tiles_are_as_exact(backend):
    arguments = backend.of(cross_arguments(batch=140, dim=72, steps=2))
    with backend.kernel_override(schedule="step", tiles="large"):
        assert_as_exact_as_plain_pytorch(arguments, torch.bfloat16, backend="cuda", draws=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "shape", [{"dim": 70, "batch": 40}, {"dim": 24, "context_dim": 8, "tied": False}, {"dim": 70, "rank": 33}], ids=str
)
def test_every_schedule_and_tile_gives_the_same_output_bits(backend, shape, dtype):
    arguments = cast(arguments_of(backend, **shape), dtype)
    outputs = []
    for choice in KERNELS.values():
        with backend.kernel_override(**choice):
            outputs.append(backend.cross_rnn(**arguments, return_states=True))
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])


@pytest.mark.parametrize("rank", [None, 8], ids=["full", "low rank"])
def test_rows_that_begin_off_a_boundary_of_16_bytes_give_the_same_bits(backend, rank):
    """Unaligned rows use scalar loads, in the same order."""
    arguments = cast(arguments_of(backend, dim=24, rank=rank), torch.bfloat16)
    shifted = dict(arguments)
    for name in ("x0", "shared_weight"):
        memory = torch.empty(arguments[name].numel() + 1, dtype=torch.bfloat16, device=backend.device)
        shifted[name] = memory[1:].view(arguments[name].shape).copy_(arguments[name])
    assert torch.equal(backend.cross_rnn(**shifted), backend.cross_rnn(**arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_other_gradients_have_the_same_bits_without_that_of_x0(backend, steps, dtype):
    arguments = cast(arguments_of(backend, context_dim=8, dim=24, steps=steps), dtype)
    out, *saved = backend.forward(arguments)
    grad, most = torch.randn_like(out), every_gradient(arguments)
    every, others = (backend.backward(arguments, grad, *saved, mask=mask) for mask in (most, most - 1))
    assert others[0].numel() == 0
    for got, want in zip(others[1:], every[1:], strict=True):
        assert torch.equal(got, want)


def test_more_columns_than_the_kernels_count_are_refused_in_words(backend):
    columns = 2**30 + 1
    arguments = {"x0": torch.empty(0, 1), "steps": 1, "cell": "gated", "context": torch.empty(1, 0, columns - 1)}
    arguments |= {"shared_weight": torch.empty(1, 0, 2, columns), "shared_bias": torch.empty(1, 0, 2)}
    arguments |= {"private_weight": torch.empty(0, 1, 1, 2, columns), "private_bias": torch.empty(0, 1, 1, 2)}
    with pytest.raises((RuntimeError, ValueError), match="1073741825 columns, C \\+ D, expected at most 1073741824 on a GPU"):
        backend.forward(backend.of(arguments), saved=False)
