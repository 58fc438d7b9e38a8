"""``auto`` where it measures, through the public functions and :func:`dcrnn_fast.tune`; and where it must not."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast import DCRNN, auto, functional, reference, tune
from dcrnn_fast.auto import memory

from ..operators.problems import cross_arguments

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_the_public_operator_takes_the_candidate_that_was_chosen(monkeypatch):
    """As on a GPU: the backends that can run on the device are the candidates."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    taken = []
    monkeypatch.setattr(
        auto, "backend_for", lambda key, device, candidates, given: taken.append((key, sorted(candidates()))) or "reference"
    )
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"].requires_grad_()})
    (key, names), *others = taken
    assert key == auto.Key("cross_rnn", True, "float32", 8, 3, 2, 2, 3, 64, True, False, False)
    assert "reference" in names
    assert not others
    functional.cross_rnn(**arguments, backend="reference")
    torch.func.vmap(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}))(arguments["x0"].detach().expand(2, -1, -1))
    assert len(taken) == 1, "a backend by name and a transform measure nothing"


def test_a_measured_call_gives_the_results_of_the_reference(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    out = functional.cross_rnn(**arguments)
    torch.testing.assert_close(out, reference.cross_rnn(**arguments))
    assert memory.known("cpu")


def test_a_compiled_graph_measures_nothing_and_has_no_break(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    compiled = torch.compile(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(arguments["x0"]), reference.cross_rnn(**arguments))
    assert not memory.known("cpu")


@pytest.fixture
def model(monkeypatch):
    """A model on a device where ``auto`` measures."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    return DCRNN({"item": 10}, tasks=("click", "consume"), dropout=0.5)


def test_tune_measures_training_and_inference_and_changes_nothing(model, monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "static")
    ids, before, state = torch.zeros(70, 1, dtype=torch.int64), torch.get_rng_state(), model.state_dict()
    found = tune(model, ids)
    assert [(key.training, key.tasks, key.rows) for key in sorted(found)] == [(False, 2, 256), (True, 2, 256)]
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(model.state_dict(), state)
    header, *rows = str(found).splitlines()
    assert header.split() == [
        "operator",
        "training",
        "kind",
        "dim",
        "context",
        "gates",
        "tasks",
        "steps",
        "rows",
        "tied",
        "return_states",
        "recompute",
        "choice",
    ]
    assert len(rows) == 2


def test_tune_measures_in_a_group_of_several_ranks_and_a_call_does_not(model, monkeypatch):
    monkeypatch.setattr(auto, "_many_ranks", lambda: True)
    ids = torch.zeros(70, 1, dtype=torch.int64)
    model(ids)
    assert not memory.known("cpu")
    tune(model, ids)
    assert len(memory.known("cpu")) == 2


def checkpointed(arguments):
    x0 = arguments["x0"].requires_grad_()
    checkpoint(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), x0, use_reentrant=False).sum().backward()


def with_hooks(arguments):
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        functional.cross_rnn(**arguments)


def counted(arguments):
    with FlopCounterMode(display=False):
        functional.cross_rnn(**arguments)


def traced(arguments):
    torch.jit.trace(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), arguments["x0"], check_trace=False)


def without_rows(arguments):
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"][:0].requires_grad_()})


def without_tasks(arguments):
    few = {name: arguments[name][:0] for name in ("private_weight", "private_bias", "index")}
    functional.cross_rnn(**{**arguments, **few, "x0": arguments["x0"].requires_grad_()})


@pytest.mark.parametrize("call", [checkpointed, with_hooks, counted, traced, without_rows, without_tasks], ids=lambda call: call.__name__)
def test_nothing_is_measured_where_somebody_would_see_it_or_there_is_nothing_to_see(call, monkeypatch, caplog):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    call(cross_arguments(batch=40, dim=8, dtype=torch.float32))
    assert not memory.known("cpu")
    assert not caplog.records
