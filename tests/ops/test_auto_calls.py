"""``auto`` where it measures, through the public functions; what it remembers; and where it must not measure."""

import re
from unittest import mock

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast import functional, reference
from dcrnn_fast.ops import auto, backends, dispatch
from dcrnn_fast.ops import checks as operands
from dcrnn_fast.ops.cross_rnn import Arguments
from tests.operators.problems import cross_arguments
from tests.ops.planted import Planted, problem, wrong_output

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_the_public_operator_takes_the_candidate_that_was_chosen(monkeypatch):
    """As on a GPU: the backends that can run on the device are the candidates."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    taken = []
    monkeypatch.setattr(auto, "_choose", lambda key, runs, problem: taken.append((key, sorted(runs))) or "reference")
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"].requires_grad_()})
    (key, names), *others = taken
    assert key == auto.Key("cpu", "cross_rnn", "float32", ("x0",), (8, 3, 2, 2, 3, 1, 0, 0), 64)
    assert "reference" in names
    assert not others
    functional.cross_rnn(**arguments, backend="reference")
    torch.func.vmap(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}))(arguments["x0"].detach().expand(2, -1, -1))
    assert len(taken) == 1, "a backend by name and a transform measure nothing"


def test_a_gather_is_measured_by_its_sizes_and_by_the_banks_that_need_a_gradient(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    shared, private = torch.zeros(3, 2, 5, requires_grad=True), torch.zeros(2, 4, 2, 5)
    index = torch.tensor([[0, 3, 6], [6, 1, 1]], dtype=torch.int32)
    functional.param_gather(shared, private, index)
    (key, choice), *others = auto.known.items()
    assert key == auto.Key("cpu", "param_gather", "float32", ("shared",), (2, 3, 3, 4, 10), 0)
    assert "every candidate" not in choice.refused, "banks of zeros are no obstacle: other numbers are copied in their place"
    assert not others


def test_a_measured_call_gives_the_results_of_the_reference(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    out = functional.cross_rnn(**arguments)
    torch.testing.assert_close(out, reference.cross_rnn(**arguments))
    assert auto.known


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_call_without_gradients_is_measured_too(mode, monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    with mode():
        arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
        functional.cross_rnn(**arguments)
        functional.param_gather(*(arguments[name] for name in ("shared_weight", "private_weight", "index")))
    assert [(key.operator, key.needs) for key in auto.known] == [("cross_rnn", ()), ("param_gather", ())]


def test_a_compiled_graph_measures_nothing_and_has_no_break(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    compiled = torch.compile(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(arguments["x0"]), reference.cross_rnn(**arguments))
    assert not auto.known


def ask(key, seconds=0.1, change=lambda run, tensors: run(*tensors)):
    """What ``auto`` takes for a size of planted candidates."""
    given, index = problem()
    planted = Planted(index, candidate=seconds)
    runs = {"reference": planted.of("reference"), "candidate": planted.of("candidate", change)}
    with mock.patch.object(auto, "timer_of", lambda call, device: lambda: planted.timer(call)):
        return auto._choose(key, runs, given)


KEY = auto.Key("cpu", "cross_rnn", "float32", (), (8, 0, 2, 2, 3, 1, 0, 0), 64)


def test_a_choice_is_remembered_and_said_with_the_reason_of_each_refusal(caplog):
    caplog.set_level("INFO", logger="dcrnn_fast")
    assert (ask(KEY), ask(KEY._replace(batch=256), change=wrong_output)) == ("candidate", "reference")
    assert [choice.backend for choice in auto.known.values()] == ["candidate", "reference"]
    said, refused = (record.getMessage() for record in caplog.records)
    assert said.startswith("auto takes candidate, 0.10 of the reference's time, for ")
    assert "; candidate refused: ArithmeticError: wrong: the relative error of the output is" in refused


def test_a_measurement_that_fails_is_not_the_users_problem(monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda runs, problem: 1 / 0 if runs else None)
    monkeypatch.setattr(auto, "TRIES", 1)
    assert ask(KEY) == "reference"
    assert auto.known[KEY].refused == {"every candidate": "ZeroDivisionError: division by zero"}


def test_calls_that_show_nothing_are_measured_a_few_times(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    for number in range(1, auto.TRIES + 1):
        functional.cross_rnn(**{**arguments, "x0": torch.zeros(40, 8)})
        assert len(auto.known) == (number == auto.TRIES)


def test_while_one_thread_measures_others_compute_by_plain_pytorch(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    with auto._measuring:
        functional.cross_rnn(**cross_arguments(batch=40, dim=8, dtype=torch.float32))
    assert not auto.known


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (16, 16), (17, 64), (8192, 16384)])
def test_batches_are_rounded_up_to_a_power_of_four(rows, size):
    assert auto.bucket(rows) == size


def checkpointed(arguments):
    x0 = arguments["x0"].requires_grad_()
    checkpoint(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), x0, use_reentrant=False).sum().backward()


def test_reentrant_checkpointing_measures_its_first_pass_as_inference_and_its_recomputation_as_training(monkeypatch):
    """PyTorch runs the first pass without gradients and without hooks, so it looks like inference."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments, grads = cross_arguments(batch=40, dim=8, dtype=torch.float32), []
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
    few = {name: arguments[name][:0] for name in ("private_weight", "private_bias", "index")}
    functional.cross_rnn(**{**arguments, **few, "x0": arguments["x0"].requires_grad_()})


@pytest.mark.parametrize("call", [checkpointed, with_hooks, counted, traced, without_rows, without_tasks], ids=lambda call: call.__name__)
def test_nothing_is_measured_where_somebody_would_see_it_or_there_is_nothing_to_see(call, monkeypatch, caplog):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    call(cross_arguments(batch=40, dim=8, dtype=torch.float32))
    assert not auto.known
    assert not caplog.records


@pytest.fixture
def quick(monkeypatch):
    """As on a GPU whose index was checked before: a planted backend whose operator checks its arguments itself."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    monkeypatch.setattr(dispatch, "resolve", lambda name, device: "reference")
    monkeypatch.setattr(dispatch, "index_is_checked", lambda index, rows: True)
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "candidate", dispatch.IMPLEMENTATIONS["cpp"])
    auto.known[KEY] = auto.Choice("candidate", 0.1, {})
    return cross_arguments(batch=40, dim=8, dtype=torch.float32)


needs_cpp = pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the C++ kernels stand for a GPU's, and are absent here")


@needs_cpp
def test_a_known_kernel_checks_its_arguments_itself(quick, monkeypatch):
    def check(*arguments, **options):
        raise AssertionError("checked twice")

    monkeypatch.setattr(Arguments, "check_shapes", check)
    functional.cross_rnn(**quick)
    with pytest.raises(AssertionError, match="checked twice"):  # plain PyTorch checks nothing itself
        functional.cross_rnn(**{**quick, "x0": quick["x0"].double()})


def test_a_call_that_may_not_be_measured_is_checked_once(quick, monkeypatch):
    checks, check = [], Arguments.check_shapes
    monkeypatch.setattr(Arguments, "check_shapes", lambda arguments: checks.append(1) or check(arguments))
    with auto._measuring:
        functional.cross_rnn(**{**quick, "x0": quick["x0"].repeat(9, 1)})
    assert len(checks) == 1


@needs_cpp
@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"shared_bias": torch.zeros(3, 2)}, ValueError, "shared_bias: got shape [3, 2], expected [4, 2]"),
        ({"private_weight": torch.zeros(2, 4, 2, 8, dtype=torch.float64)}, TypeError, "private_weight: got dtype torch.float64"),
        ({"index": torch.zeros(2, 8)}, TypeError, "index: got dtype torch.float32, expected torch.int32"),
        ({"index": [[0]]}, TypeError, "index: got list"),
        ({"shared_weight": None}, TypeError, "shared_weight: got NoneType"),
        ({"context": torch.zeros(3)}, ValueError, "context: got shape [3], expected [3, 40, C]"),
        ({"index": torch.full((2, 8), 8, dtype=torch.int32)}, IndexError, "index: got 8, expected values in [0, S + P) = [0, 8)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_argument_of_a_known_kernel_is_named_as_ever(quick, change, error, said):
    with pytest.raises(error, match=re.escape(said)):
        functional.cross_rnn(**{**quick, **change})


def test_wrong_arguments_are_refused_before_they_are_measured(monkeypatch, caplog):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    monkeypatch.setattr(dispatch, "resolve", lambda name, device: "reference")
    monkeypatch.setattr(dispatch, "index_is_checked", lambda index, rows: True)
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    with pytest.raises(ValueError, match="shared_bias: got shape"):
        functional.cross_rnn(**{**arguments, "shared_bias": torch.zeros(3, 2)})
    assert not auto.known
    assert not caplog.records


def test_an_index_on_a_gpu_counts_as_checked_until_it_changes():
    class OnGpu:
        is_cpu, _version = False, 1

        def is_inference(self):
            return False

    index = OnGpu()
    assert not operands.index_is_checked(index, 8)
    operands._checked_index[index] = (1, 8)
    assert operands.index_is_checked(index, 8)
    assert not operands.index_is_checked(index, 7)
    index._version = 2
    assert not operands.index_is_checked(index, 8)
