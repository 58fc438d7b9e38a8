"""``auto`` as on a GPU, by candidates and times that are fakes on the CPU: what it measures, takes and remembers, and where it must not."""

from timeit import timeit

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast import CrossRNN, SharingPlan, functional, reference
from dcrnn_fast.ops import auto_gpu, backends, dispatch
from dcrnn_fast.ops.cross_rnn import INPUTS
from tests.operators.problems import cross_arguments

ALL, NONE, WITHOUT_X0 = (True,) * 5, (False,) * 5, (False, True, True, True, True)
WEIGHTS = INPUTS[1:5]
OPTIONS, SIZES = (3, "gated", False, False), (8, 1, 4, 2, 8, 2, 1, 4, 2, 8)
KEY = auto_gpu.Key("cpu", "cross_rnn", "float32", WEIGHTS, OPTIONS, SIZES, 64)
KERNEL, PLAIN = "dcrnn_fast.cross_rnn.default", "plain PyTorch"


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """A process that knows nothing and has no Triton: its interpreter would take minutes."""
    monkeypatch.setattr(auto_gpu, "DEVICES", ("cpu",))
    monkeypatch.setattr(auto_gpu, "timer_of", lambda call, device: lambda: timeit(call, number=1))
    monkeypatch.setattr(auto_gpu, "known", {})
    monkeypatch.setitem(auto_gpu.REASONS, "candidate", None)
    monkeypatch.setitem(auto_gpu.REASONS, "triton", "taken away by the test")
    torch._dynamo.reset()


@pytest.fixture
def arguments():
    return cross_arguments(batch=40, dim=8, dtype=torch.float32)


@pytest.fixture
def measured(monkeypatch, arguments):
    """The choice between the reference, which takes a second, and a candidate: the reference after a change, in so many seconds."""

    def measure(change=lambda run, tensors: run(*tensors), seconds=0.5, needs=ALL, **values):
        def plain(*tensors):
            return reference.cross_rnn(*tensors, steps=3)

        runs = {"reference": plain, "candidate": lambda *tensors: change(plain, tensors)}
        timers = iter([lambda: seconds, lambda: 1.0])  # the candidate's is made first, if it is right
        monkeypatch.setattr(auto_gpu, "timer_of", lambda call, device: next(timers))
        tensors = [values.get(name, arguments[name]) for name in INPUTS[:5]]
        return auto_gpu.measure(runs, auto_gpu.Call(tensors, [0, None, None, None, None], needs, "float32"))

    return measure


@pytest.mark.parametrize(("seconds", "taken"), [(0.5, "candidate"), (0.95, "reference"), (3.0, "reference")])
def test_a_right_candidate_is_taken_if_it_is_a_tenth_faster(measured, seconds, taken):
    assert measured(seconds=seconds).backend == taken


def wrong_gradient_of_x0(run, tensors):
    return run(*tensors) + (tensors[0] - tensors[0].detach()).sum() * 1e-2


def out_of_memory(run, tensors):
    raise torch.OutOfMemoryError("planted\nand a second line")


WRONG = {
    "output, far below the ceiling": (lambda run, given: run(*given) * (1 + 2**-21), "wrong: the relative error of the output is"),
    "gradient": (wrong_gradient_of_x0, "wrong: the relative error of gradient 0"),
    "NaN": (lambda run, given: run(*given) * float("nan"), "wrong: the relative error of the output is nan"),
    "another shape": (lambda run, given: run(*given)[:1], "wrong: the relative error of the output is inf"),
    "out of memory": (out_of_memory, "OutOfMemoryError: planted"),
    "in later rows": (lambda run, given: run(*given) * (2 if len(given[0]) > 8 else 1), "wrong on all rows"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_candidate_is_refused_however_fast(measured, change, said, monkeypatch):
    monkeypatch.setattr(auto_gpu, "CHECKED_ROWS", 8 if said == "wrong on all rows" else auto_gpu.CHECKED_ROWS)
    choice = measured(change, seconds=0.0)
    assert choice.backend == "reference"
    assert said in choice.refused["candidate"]


@pytest.mark.parametrize("needs", [NONE, WITHOUT_X0])
def test_a_gradient_that_is_not_needed_is_not_checked(measured, needs):
    assert measured(wrong_gradient_of_x0, needs=needs).backend == "candidate"


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 0.0])
def test_nothing_is_chosen_by_results_that_are_not_finite_or_zero(measured, value):
    with pytest.raises(ArithmeticError, match="not finite, or zero"):
        measured(x0=torch.full((40, 8), value))


def test_a_measurement_touches_no_tensor_of_the_caller_and_no_random_state(measured, arguments):
    before, x0 = torch.get_rng_state(), arguments["x0"].clone().requires_grad_()
    measured(x0=x0)
    assert x0.grad is None
    assert torch.equal(x0, arguments["x0"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
def test_a_call_is_measured_once_and_gives_the_results_of_the_reference(rank):
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3, rank=rank)
    for _ in range(2):
        torch.testing.assert_close(functional.cross_rnn(**arguments), reference.cross_rnn(**arguments))
        functional.param_gather(torch.zeros(3, 2, 5, requires_grad=True), torch.zeros(1, 4, 2, 5), torch.tensor([[0, 3, 6]]).int())
    assert [key.operator.removeprefix("low_rank_") for key in auto_gpu.known] == ["cross_rnn", "param_gather"]


def test_a_measurement_that_fails_is_not_the_users_problem(arguments, monkeypatch):
    monkeypatch.setattr(auto_gpu, "measure", lambda runs, call: [][0])
    torch.testing.assert_close(functional.cross_rnn(**arguments), reference.cross_rnn(**arguments))
    assert [choice.backend for choice in auto_gpu.known.values()] == ["reference"]


def test_reentrant_checkpointing_measures_inference_and_then_training(arguments):
    """PyTorch runs the first pass without gradients and without hooks, so it looks like inference."""
    x0 = arguments["x0"].clone().requires_grad_()
    checkpoint(lambda x0: computed(arguments, x0=x0), x0, use_reentrant=True).sum().backward()
    assert [key.needs for key in auto_gpu.known] == [(), ("x0",)]


def computed(arguments, **changed):
    return functional.cross_rnn(**{**arguments, **changed})


def counted(arguments):
    with FlopCounterMode(display=False):
        computed(arguments)


def beside_another_measurement(arguments):
    with auto_gpu._measuring:
        computed(arguments)


UNMEASURED = {
    "checkpointed": lambda a: checkpoint(lambda x0: computed(a, x0=x0), a["x0"].requires_grad_(), use_reentrant=False).sum().backward(),
    "counted": counted,
    "traced": lambda a: torch.jit.trace(lambda x0: computed(a, x0=x0), a["x0"], check_trace=False),
    "transformed": lambda a: torch.func.vmap(lambda x0: computed(a, x0=x0))(a["x0"].expand(2, -1, -1)),
    "without rows": lambda a: computed(a, x0=a["x0"][:0].requires_grad_()),
    "of zeros": lambda a: computed(a, x0=torch.zeros(40, 8)),
    "beside another measurement": beside_another_measurement,
}


@pytest.mark.parametrize("call", UNMEASURED.values(), ids=UNMEASURED)
def test_nothing_is_measured_where_it_would_show_or_nothing_shows(call, arguments):
    call(arguments)
    assert not auto_gpu.known


@pytest.fixture
def model(monkeypatch):
    """Its expected results measure nothing."""
    if backends.REASONS["cpp"] is not None:
        pytest.skip("plants the C++ kernels as a choice, which are absent here")
    monkeypatch.setattr(auto_gpu, "_choose", lambda *measurement: "reference")
    return CrossRNN(SharingPlan.from_ratio("rows", num_tasks=2, dim=8, share_ratio=0.5, steps=3))


def plant(*choices, key=KEY):
    """Remember the choices, the first for batches up to 64 rows, the others for larger ones."""
    auto_gpu.known.update({key._replace(batch=64 * 4**i): auto_gpu.Choice(name, 0.5, {}) for i, name in enumerate(choices)})


def by(graph):
    """What a graph computes by."""
    operators = [str(node.target) for node in graph.graph.nodes if "dcrnn_fast" in str(node.target)]
    return operators[0] if operators else PLAIN


def compiled(function, **options):
    """A function compiled into whole graphs, and what those compute by."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(by(graph))
        return graph

    return torch.compile(function, backend=keep, fullgraph=True, **options), graphs


CHOSEN = {
    "nothing": ((), {}, PLAIN),
    "one batch size": (("cpp",), {}, KERNEL),
    "all batch sizes": (("cpp", "cpp"), {}, KERNEL),
    "some batch sizes": (("cpp", "reference"), {}, PLAIN),
    "other gradients": (("cpp",), {"needs": ()}, PLAIN),
    "another dtype": (("cpp",), {"kind": "bfloat16"}, PLAIN),
    "other steps": (("cpp",), {"options": (4, *OPTIONS[1:])}, PLAIN),
    "another width": (("cpp",), {"sizes": (9, *SIZES[1:])}, PLAIN),
}


@pytest.mark.parametrize(("choices", "change", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_a_compiled_graph_takes_what_every_measured_batch_size_took(model, choices, change, expected):
    plant(*choices, key=KEY._replace(**change))
    call, graphs = compiled(model, dynamic=True)
    for rows in (5, 70, 300):
        x0 = torch.randn(rows, 8)
        torch.testing.assert_close(call(x0), model(x0))
    assert graphs == [expected], "one graph serves every batch size"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("needs", [WEIGHTS, ()], ids=["training", "inference"])
def test_an_exported_graph_takes_the_choice_and_any_batch_size(model, strict, needs):
    plant("cpp", key=KEY._replace(needs=needs))
    program = torch.export.export(model, (torch.randn(5, 8),), dynamic_shapes=({0: torch.export.Dim("rows")},), strict=strict)
    assert by(program.graph_module) == KERNEL
    x0 = torch.randn(17, 8)
    torch.testing.assert_close(program.module()(x0), model(x0))


def test_a_captured_graph_takes_the_choice_of_its_batch_size(model, monkeypatch):
    """While a CUDA graph is captured no values can be read, as here."""
    taken = []
    monkeypatch.setattr(auto_gpu, "may_read_values", lambda tensor: False)
    monkeypatch.setattr(dispatch, "implementation", lambda name: taken.append(name) or dispatch.IMPLEMENTATIONS[name])
    plant("cpp", "reference")
    for rows in (40, 200, 2000):
        model(torch.randn(rows, 8))
    assert taken == ["cpp", "reference", "reference"], "no batch of 2000 was measured, and the others differ"
    assert len(auto_gpu.known) == 2


def test_a_compiled_graph_in_a_checkpoint_or_transform_takes_the_reference(model):
    for needs in ((), WEIGHTS, ("x0", *WEIGHTS)):
        plant("cpp", key=KEY._replace(needs=needs))
    call, graphs = compiled(model)
    checkpoint(call, torch.randn(5, 8, requires_grad=True), use_reentrant=False).sum().backward()
    gradient, of_gradient = compiled(torch.func.grad(lambda x0: model(x0).sum()))
    gradient(torch.randn(5, 8))
    assert graphs + of_gradient == [PLAIN, PLAIN]
