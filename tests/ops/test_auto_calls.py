"""``auto`` where it measures, through the public functions; what it remembers; and where it must not measure."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast import functional, reference
from dcrnn_fast.ops import auto
from tests.operators.problems import cross_arguments
from tests.ops.planted import Planted, call_of, right, wrong_output

pytestmark = pytest.mark.usefixtures("unmeasured")
KEY = auto.Key("cpu", "cross_rnn", "float32", (), (3, "gated", False, False), (8, 1, 4, 2, 8, 2, 1, 4, 2, 8), 64)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))


@pytest.fixture
def arguments():
    return cross_arguments(batch=40, dim=8, dtype=torch.float32)


def test_the_public_operator_takes_the_candidate_that_was_chosen(arguments, monkeypatch):
    """The backends that can run on the device are the candidates."""
    taken = []
    monkeypatch.setattr(auto, "_choose", lambda key, runs, call: taken.append((key, sorted(runs))) or "reference")
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"].requires_grad_()})
    (key, names), *others = taken
    assert key == KEY._replace(needs=("x0",))
    assert "reference" in names
    assert not others
    functional.cross_rnn(**arguments, backend="reference")
    torch.func.vmap(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}))(arguments["x0"].detach().expand(2, -1, -1))
    assert len(taken) == 1, "a backend by name and a transform measure nothing"


def test_a_gather_is_measured_by_its_sizes_and_what_needs_a_gradient():
    shared, private = torch.zeros(3, 2, 5, requires_grad=True), torch.zeros(2, 4, 2, 5)
    index = torch.tensor([[0, 3, 6], [6, 1, 1]], dtype=torch.int32)
    functional.param_gather(shared, private, index)
    (key, choice), *others = auto.known.items()
    assert key == auto.Key("cpu", "param_gather", "float32", ("shared",), (False,), (3, 3, 2, 5, 2, 4, 2, 5), 0)
    assert "every candidate" not in choice.refused, "banks of zeros are no obstacle: other numbers are copied in their place"
    assert not others


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
def test_a_measured_call_gives_the_results_of_the_reference(rank):
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3, rank=rank)
    torch.testing.assert_close(functional.cross_rnn(**arguments), reference.cross_rnn(**arguments))
    assert auto.known


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_call_without_gradients_is_measured_too(mode):
    with mode():
        functional.cross_rnn(**cross_arguments(batch=40, dim=8, dtype=torch.float32))
    assert [(key.operator, key.needs) for key in auto.known] == [("cross_rnn", ())]


def test_a_compiled_graph_measures_nothing_and_has_no_break(arguments):
    compiled = torch.compile(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(arguments["x0"]), reference.cross_rnn(**arguments))
    assert not auto.known


def ask(key, change=right):
    """What ``auto`` takes for a size of planted candidates."""
    planted = Planted(0.1, change)
    with planted.clock:
        return auto._choose(key, planted.runs, call_of())


def test_a_choice_is_remembered_and_said_with_the_reason_of_each_refusal(caplog):
    caplog.set_level("INFO", logger="dcrnn_fast")
    assert (ask(KEY), ask(KEY._replace(batch=256), change=wrong_output)) == ("candidate", "reference")
    assert [choice.backend for choice in auto.known.values()] == ["candidate", "reference"]
    said, refused = (record.getMessage() for record in caplog.records)
    assert said.startswith("auto takes candidate, 0.10 of the reference's time, for ")
    assert "; candidate refused: ArithmeticError: wrong: the relative error of the output is" in refused


def test_a_measurement_that_fails_is_not_the_users_problem(monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda runs, call: 1 / 0 if runs else None)
    monkeypatch.setattr(auto, "TRIES", 1)
    assert ask(KEY) == "reference"
    assert auto.known[KEY].refused == {"every candidate": "ZeroDivisionError: division by zero"}


def test_calls_that_show_nothing_are_measured_a_few_times(arguments):
    for number in range(1, auto.TRIES + 1):
        functional.cross_rnn(**{**arguments, "x0": torch.zeros(40, 8)})
        assert len(auto.known) == (number == auto.TRIES)


def test_while_one_thread_measures_others_compute_by_plain_pytorch(arguments):
    with auto._measuring:
        functional.cross_rnn(**arguments)
    assert not auto.known


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (16, 16), (17, 64), (8192, 16384)])
def test_batches_are_rounded_up_to_a_power_of_four(rows, size):
    assert auto.bucket(rows) == size


def checkpointed(arguments):
    x0 = arguments["x0"].requires_grad_()
    checkpoint(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), x0, use_reentrant=False).sum().backward()


def test_reentrant_checkpointing_measures_inference_and_then_training(arguments):
    """PyTorch runs the first pass without gradients and without hooks, so it looks like inference."""
    grads = []
    for operator in (functional.cross_rnn, reference.cross_rnn):
        x0 = arguments["x0"].clone().requires_grad_()
        checkpoint(lambda x0, run=operator: run(**{**arguments, "x0": x0}), x0, use_reentrant=True).sum().backward()
        grads.append(x0.grad)
    torch.testing.assert_close(*grads)
    assert [key.needs for key in auto.known] == [(), ("x0",)]


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
    few = {name: arguments[name][:0] for name in ("private_weight", "private_bias")}
    functional.cross_rnn(**{**arguments, **few, "x0": arguments["x0"].requires_grad_()})


CALLS = checkpointed, with_hooks, counted, traced, without_rows, without_tasks


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_nothing_is_measured_where_it_would_show_or_nothing_shows(call, arguments, caplog):
    call(arguments)
    assert not auto.known
    assert not caplog.records


def test_wrong_arguments_are_refused_before_they_are_measured(arguments, caplog):
    for change, error in (({"shared_bias": torch.zeros(3, 2)}, ValueError), ({"private_weight": None}, TypeError)):
        with pytest.raises(error, match=f"{next(iter(change))}: got "):
            functional.cross_rnn(**{**arguments, **change})
    assert not auto.known
    assert not caplog.records
