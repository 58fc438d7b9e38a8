"""What the interpreter leaves out of the schedules repeats a call of another test, and nothing else is left out."""

import pytest
import torch

pytest.importorskip("triton")

from dcrnn_fast.kernels import INTERPRETED

from ..triton.programs import recorded
from .backend import CHOICES, Backend, on
from .precision import cast
from .problems import SHAPES, arguments_of

interpreted = pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")


def launches(backend, arguments, **choice):
    """The kernels of a forward and their grids and numbers."""
    with recorded() as made, backend.kernel_override(**choice):
        backend.operators.cross_rnn(*backend.operands(arguments))
    assert made
    return [(one.name, one.grid, one.integers) for one in made]


def left_out(backend, arguments, dtype):
    """The schedules that are left out."""
    found = []
    for choice in CHOICES["triton"].values():
        with backend.kernel_override(**choice):
            found += [choice["schedule"]] if backend.repeats(arguments, dtype) else []
    return found


@interpreted
@on("triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one row", "one unit", "six steps", "rows of 8 values", "wide context, untied"])
def test_of_the_full_cell_the_schedule_that_it_takes_by_itself_is_left_out(backend, name, dtype):
    arguments = cast(arguments_of(backend, **SHAPES[name]), dtype)
    expected, by_itself = [], launches(backend, arguments)
    for choice in CHOICES["triton"].values():
        expected += [choice["schedule"]] if launches(backend, arguments, **choice) == by_itself else []
    assert len(expected) == 1
    assert left_out(backend, arguments, dtype) == expected


@interpreted
@on("triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_of_the_low_rank_cell_one_of_two_equal_schedules_is_left_out(backend, dtype):
    arguments = cast(arguments_of(backend, context_dim=3, rank=5), dtype)
    first, second = (launches(backend, arguments, **choice) for choice in CHOICES["triton"].values())
    assert first == second
    assert left_out(backend, arguments, dtype) == ["all_steps"]


@pytest.mark.parametrize("name", ["reference", "cpp", "cuda"])
def test_other_backends_leave_nothing_out(name):
    arguments = {"x0": torch.zeros(20, 17)}
    assert not Backend(name, "cpu", None, "").repeats(arguments, torch.float32)
    assert not Backend("triton", "cuda", None, "").repeats(arguments, torch.float32)
