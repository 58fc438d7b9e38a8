"""What the interpreter leaves out repeats a call of another test, and nothing else is left out."""

import pytest
import torch

pytest.importorskip("triton")

from dcrnn_fast.kernels import INTERPRETED

from ..operators.backend import CHOICES, REPEATED, Backend, on
from ..operators.precision import cast
from ..operators.problems import SHAPES, arguments_of
from .programs import recorded

interpreted = pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")


def launches(backend, arguments, **choice):
    """The kernels of a forward and their grids and numbers."""
    with recorded() as made, backend.kernel_override(**choice):
        backend.forward(backend.operands(arguments))
    assert made
    return [(one.name, one.grid, one.integers) for one in made]


@interpreted
@on("triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one row", "one unit", "six steps", "rows of 8 values", "wide context, untied"])
def test_a_call_of_the_full_cell_takes_all_steps_by_itself_and_step_is_another(backend, name, dtype):
    arguments = cast(arguments_of(backend, **SHAPES[name]), dtype)
    step, all_steps = (launches(backend, arguments, **choice) for choice in CHOICES["triton"].values())
    assert launches(backend, arguments) == all_steps != step


@interpreted
@on("triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_both_schedules_of_the_low_rank_cell_are_one(backend, dtype):
    arguments = cast(arguments_of(backend, context_dim=3, rank=5), dtype)
    step, all_steps = (launches(backend, arguments, **choice) for choice in CHOICES["triton"].values())
    assert step == all_steps


@pytest.mark.parametrize("name", [*CHOICES["reference"], *CHOICES["cpp"], *CHOICES["triton"], *CHOICES["cuda"]])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("cell", REPEATED)
def test_nothing_but_all_steps_under_the_interpreter_is_left_out(name, device, cell):
    backend = Backend(name.partition(",")[0], device, None, "", choice=name)
    if (name, device) == ("triton, all_steps", "cpu"):
        with pytest.raises(pytest.skip.Exception):
            backend.skip_repeated(cell)
    else:
        backend.skip_repeated(cell)
