"""``auto`` where it measures, through the public functions and :func:`dcrnn_fast.tune`; and where it must not."""

import re

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast import DCRNN, functional, reference, tune
from dcrnn_fast.ops import auto, backends, dispatch
from dcrnn_fast.ops import checks as operands
from dcrnn_fast.ops.auto import decision, memory
from dcrnn_fast.ops.cross_rnn import Arguments
from tests.operators.problems import cross_arguments

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_the_public_operator_takes_the_candidate_that_was_chosen(monkeypatch):
    """As on a GPU: the backends that can run on the device are the candidates."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    taken = []
    monkeypatch.setattr(
        decision, "backend_for", lambda key, device, candidates, *others: taken.append((key, sorted(candidates()))) or "reference"
    )
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"].requires_grad_()})
    (key, names), *others = taken
    assert key == auto.Key("cross_rnn", "float32", ("x0",), (8, 3, 2, 2, 3, 1, 0, 0), 64)
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
    (key, choice), *others = memory.known("cpu").items()
    assert key == auto.Key("param_gather", "float32", ("shared",), (2, 3, 3, 4, 10), 0)
    assert choice.lasting, "banks of zeros are no obstacle: other numbers are copied in their place"
    assert not others


def test_a_measured_call_gives_the_results_of_the_reference(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    out = functional.cross_rnn(**arguments)
    torch.testing.assert_close(out, reference.cross_rnn(**arguments))
    assert memory.known("cpu")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_call_without_gradients_is_measured_too(mode, monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    with mode():
        arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
        functional.cross_rnn(**arguments)
        functional.param_gather(*(arguments[name] for name in ("shared_weight", "private_weight", "index")))
    assert [(key.operator, key.needs, choice.lasting) for key, choice in memory.known("cpu").items()] == [
        ("cross_rnn", (), True),
        ("param_gather", (), True),
    ]


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
    return DCRNN({"item": 10}, tasks=("click", "consume"), dropout=0.5, tower_share_ratio=0.5)


def test_tune_measures_training_and_inference_and_changes_nothing(model, monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "static")
    ids, before, state = torch.zeros(70, 1, dtype=torch.int64), torch.get_rng_state(), model.state_dict()
    found = tune(model, ids)
    gathers = 2 * len(model.towers)  # of weights and of biases; the head shares nothing, so it gathers nothing
    assert [(key.operator, key.needs, key.batch) for key in sorted(found)] == [
        ("cross_rnn", (), 256),
        ("cross_rnn", auto.INPUTS["cross_rnn"][:5], 256),
        *[("param_gather", (), 0)] * gathers,
        *[("param_gather", ("shared", "private"), 0)] * gathers,
    ]
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(model.state_dict(), state)
    header, *rows = str(found).splitlines()
    assert header.split() == ["operator", "kind", "gradients", "sizes", "batch", "choice"]
    assert rows[0].startswith("cross_rnn     float32  none ")
    assert "dim=16 context=0 gates=2 tasks=2 steps=3 tied=1 return_states=0 recompute=0" in rows[0]
    assert len(rows) == len(found)


def test_tune_in_inference_mode_measures_the_same_sizes(model):
    ids = torch.zeros(70, 1, dtype=torch.int64)
    with torch.inference_mode():
        inside = tune(model, ids.clone())
    assert sorted(inside) == sorted(tune(model, ids))


def test_tune_of_a_model_that_cannot_be_trained_measures_inference_alone(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    with torch.inference_mode():
        model = DCRNN({"item": 10}, tasks=("click", "consume"))
    assert {key.needs for key in tune(model, torch.zeros(70, 1, dtype=torch.int64))} == {()}


def test_a_call_in_a_group_of_several_ranks_measures_nothing(model, monkeypatch):
    monkeypatch.setattr(decision, "many_ranks", lambda: True)
    model(torch.zeros(70, 1, dtype=torch.int64))
    assert not memory.known("cpu")


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
    assert [key.needs for key in memory.known("cpu")] == [(), ("x0",)]


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


@pytest.fixture
def quick(monkeypatch):
    """As on a GPU whose index was checked before: a planted backend whose operator checks its arguments itself."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    monkeypatch.setattr(dispatch, "resolve", lambda name, device: "reference")
    monkeypatch.setattr(dispatch, "index_is_checked", lambda index, rows: True)
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "candidate", dispatch.IMPLEMENTATIONS["cpp"])
    monkeypatch.setenv(auto.ENVIRONMENT, "cached")
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    memory.remember("cpu", {auto.Key("cross_rnn", "float32", (), (8, 0, 2, 2, 3, 1, 0, 0), 64): auto.Choice("candidate")})
    return arguments


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
    assert not memory.known("cpu")
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
