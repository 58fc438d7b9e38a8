"""The checked operators: equal to the reference, and one clear error for an argument that does not fit."""

import pytest
import torch

from dcrnn_fast import DCNv2, functional, reference

from .problems import cross_arguments


def test_the_operators_compute_what_the_reference_computes():
    arguments = cross_arguments(context_dim=2, dtype=torch.float32)
    torch.testing.assert_close(functional.cross_rnn(**arguments), reference.cross_rnn(**arguments))
    banks = arguments["shared_weight"], arguments["private_weight"], arguments["index"]
    assert torch.equal(functional.param_gather(*banks), reference.param_gather(*banks))


CASES = {
    "steps below one": ({"steps": 0}, ValueError, "steps=0"),
    "an unknown cell": ({"cell": "gru"}, ValueError, "cell='gru'"),
    "one-dimensional x0": ({"x0": lambda a: a["x0"][0]}, ValueError, r"x0: got shape \[5\]"),
    "x0 without units": ({"x0": lambda a: a["x0"][:, :0]}, ValueError, r"x0: got shape \[4, 0\]"),
    "x0 of another width": ({"x0": lambda a: a["x0"][:, :4]}, ValueError, r"shared_weight: got shape \[2, 2, 5\], expected \[S, 2, 4\]"),
    "x0 of another dtype": ({"x0": lambda a: a["x0"].float()}, TypeError, "shared_weight: got dtype torch.float64, expected torch.float32"),
    "gates of another cell": ({"cell": "cross"}, ValueError, r"shared_weight: got shape \[2, 2, 5\], expected \[S, 1, 5\]"),
    "int64 index": ({"index": lambda a: a["index"].long()}, TypeError, "index: got dtype torch.int64, expected torch.int32"),
    "flat index": ({"index": lambda a: a["index"][0]}, ValueError, r"index: got shape \[5\]"),
    "rows for no number of steps": ({"index": lambda a: a["index"][:, :3]}, ValueError, "index: got 3 rows a task"),
    "index of another number of tasks": ({"index": lambda a: a["index"][:1]}, ValueError, "private_weight: got 2 tasks, expected 1"),
    "an index beyond the banks": ({"index": lambda a: a["index"] + 5}, IndexError, r"index: got \d+, expected values in .* \[0, 5\)"),
    "a negative index": ({"index": lambda a: a["index"] - 5}, IndexError, r"index: got -\d+, expected"),
    "a bias of another length": ({"shared_bias": lambda a: a["shared_bias"][:1]}, ValueError, r"shared_bias: got shape \[1, 2\]"),
    "a private bias of another length": ({"private_bias": lambda a: a["private_bias"][:, :1]}, ValueError, r"private_bias: got shape"),
    "private rows of another width": ({"private_weight": lambda a: a["private_weight"][..., :4]}, ValueError, "private_weight: got shape"),
    "context for other steps": ({"context": lambda a: torch.zeros(2, 4, 1).double()}, ValueError, r"context: got shape \[2, 4, 1\]"),
    "context that no row reads": ({"context": lambda a: torch.zeros(3, 4, 1).double()}, ValueError, r"expected \[S, 2, 6\]"),
    "tensors on two devices": ({"shared_weight": lambda a: a["shared_weight"].to("meta")}, ValueError, "device"),
}


@pytest.mark.parametrize(("change", "error", "message"), CASES.values(), ids=CASES)
def test_an_argument_that_does_not_fit_is_refused_by_name(change, error, message):
    arguments = cross_arguments()
    changed = {name: value(arguments) if callable(value) else value for name, value in change.items()}
    with pytest.raises(error, match=message):
        functional.cross_rnn(**{**arguments, **changed})


def test_param_gather_refuses_integer_banks():
    with pytest.raises(TypeError, match=r"shared: got dtype torch\.int64"):
        functional.param_gather(torch.zeros(2, 3).long(), torch.zeros(1, 2, 3).long(), torch.zeros(1, 2, dtype=torch.int32))


def test_param_gather_refuses_an_index_into_another_tasks_rows():
    """The largest index reaches the task's own last row; one more would be the next task's first."""
    with pytest.raises(IndexError, match=r"index: got 4, expected values in \[0, S \+ P\) = \[0, 4\)"):
        functional.param_gather(torch.zeros(2, 3), torch.zeros(2, 2, 3), torch.full((2, 1), 4, dtype=torch.int32))


def test_under_autocast_a_module_takes_what_a_linear_layer_gives():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 8), DCNv2(8, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layers(torch.randn(5, 4))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layers.parameters() if p.requires_grad)
