"""The recurrence in C++: what it alone has, tiles, chunks, threads and scratch memory."""

from functools import partial
from itertools import product

import pytest
import torch

from dcrnn_fast import functional, reference

from .backend import DTYPES, on
from .precision import assert_as_exact_as_plain_pytorch, cast, relative_error, results
from .problems import DOUBLE, cross_arguments

pytestmark = on("cpp")

full_and_low_rank = pytest.mark.parametrize("rank", [None, 9], ids=["full", "low rank"])


def errors_of_x0(backend, problems):
    """The median errors of the gradient of x0, ours and plain PyTorch's, over pairs of arguments and a seed."""
    errors = []
    for arguments, seed in problems:
        exact = results(reference.cross_rnn, cast(arguments, DOUBLE), seed)
        runs = [results(run, cast(arguments, torch.float32), seed) for run in (backend.cross_rnn, reference.cross_rnn)]
        errors.append([relative_error(result["gradient of x0"], exact["gradient of x0"]) for result in runs])
    return torch.tensor(errors).median(dim=0).values


def test_the_gradient_of_x0_is_as_exact_where_many_equal_terms_are_summed(backend):
    """Without weights every step of every task adds the same: 120 terms in one chain of additions lose 5 times what plain PyTorch does."""
    problems = [(cross_arguments(batch=4, dim=2, tasks=6, steps=20, share_ratio=1, seed=draw), torch.randn(4, 2)) for draw in range(9)]
    for arguments, _ in problems:
        arguments["shared_weight"].zero_()
    fast, plain = errors_of_x0(backend, [(arguments, seed.expand(6, 4, 2)) for arguments, seed in problems])
    assert fast <= 2 * max(plain, torch.finfo(torch.float32).eps), f"relative error {fast:.1e}, plain PyTorch {plain:.1e}"


def test_the_gradient_of_x0_is_as_exact_where_the_terms_are_small(backend):
    """Small weights hardly change a gradient from step to step: terms added to it one by one lose 2.7 times what plain PyTorch does."""
    problems = []
    for draw in range(41):
        arguments = cross_arguments(batch=4, dim=7, steps=8, share_ratio=0.3, seed=draw)
        small = {name: value * 0.1 if torch.is_tensor(value) else value for name, value in arguments.items()}
        problems.append((small, torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(draw))))
    fast, plain = errors_of_x0(backend, problems)
    assert fast <= 1.5 * plain, f"relative error {fast:.1e}, plain PyTorch {plain:.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_recurrence_that_amplifies_rounding_is_as_exact(backend, dtype):
    """Weights twice as large make six steps chaotic: one draw's error may be a hundredth or a hundred times plain PyTorch's."""
    arguments = cross_arguments(batch=3, dim=23, tasks=5, steps=6, seed=1)
    weights = {name: 2 * value for name, value in arguments.items() if name.startswith(("shared", "private"))}
    assert_as_exact_as_plain_pytorch({**arguments, **weights}, dtype)


@full_and_low_rank
@pytest.mark.parametrize("shape", [{"batch": 20_000, "dim": 20, "tasks": 2}, {"batch": 400_000, "dim": 2, "tasks": 1, "steps": 1}], ids=str)
def test_the_rounding_error_does_not_grow_with_the_batch(backend, shape, rank):
    assert_as_exact_as_plain_pytorch(cross_arguments(**shape, rank=rank), torch.float32)


def test_the_check_of_exactness_catches_a_wrong_gradient(backend, monkeypatch):
    """Negative control: a loss of one part in a hundred thousand in a gradient is refused."""
    right = functional.cross_rnn

    def wrong(x0, **arguments):
        return right(x0 * (1 + 1e-5) - x0.detach() * 1e-5, **arguments)

    monkeypatch.setattr(functional, "cross_rnn", wrong)
    with pytest.raises(AssertionError, match="gradient of x0"):
        assert_as_exact_as_plain_pytorch(cross_arguments(batch=127, dim=33), torch.float32)


def test_the_forward_has_the_same_bits_for_any_number_of_threads(backend):
    shapes = (1, 64, 1), (5, 200, 1), (9, 256, 2), (15, 128, 1), (100, 200, 1), (20, 500, 1), (64, 128, 2), (127, 33, 2), (300, 256, 1)
    before = torch.get_num_threads()
    try:
        for (batch, dim, tasks), dtype, rank in product((*shapes, (1000, 64, 3)), (torch.float32, torch.bfloat16), (None, 9)):
            arguments = cross_arguments(batch=batch, dim=dim, tasks=tasks, dtype=dtype, context_dim=3, rank=rank)
            outputs = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                outputs.append(backend.cross_rnn(**arguments))
            assert all(torch.equal(outputs[0], other) for other in outputs[1:]), (batch, dim, tasks, dtype, rank)
    finally:
        torch.set_num_threads(before)


@full_and_low_rank
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(backend, rank):
    for dim, dtype in product((16, 33, 200), (torch.float32, DOUBLE)):
        arguments = cross_arguments(batch=700, dim=dim, tasks=2, dtype=dtype, context_dim=3, rank=rank)
        together = backend.cross_rnn(**arguments)
        for rows in (slice(0, 4), slice(57, 70), slice(650, 700)):
            some = {**arguments, "x0": arguments["x0"][rows], "context": arguments["context"][:, rows]}
            assert torch.equal(backend.cross_rnn(**some), together[:, rows]), (dim, dtype, rows)


@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@full_and_low_rank
def test_nothing_is_read_from_memory_before_it_is_written(backend, rank, dtype, poison, recompute):
    """A run on poison leaves it in the operator's own scratch memory; blocks of many sizes leave it in the allocator's."""
    arguments = cast(cross_arguments(batch=300, dim=33, context_dim=5, rank=rank), dtype)
    seed = torch.randn(2, 4, 300, 33)
    run = partial(backend.cross_rnn, return_states=True, recompute=recompute)
    expected = results(run, cast(arguments, dtype), seed)
    for _ in range(2):
        poisoned = {**cast(arguments, dtype), "x0": torch.full_like(arguments["x0"], poison).detach()}
        results(run, poisoned, torch.full_like(seed, poison))
        trash = [torch.full((count,), poison, dtype=torch.float64) for count in (2_000, 20_000, 60_000, 120_000, 250_000) for _ in range(4)]
        del trash
        for name, got in results(run, cast(arguments, dtype), seed).items():
            assert torch.equal(got, expected[name]), name
