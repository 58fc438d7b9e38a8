"""``auto`` in graphs that are compiled, exported or captured: it takes what every measured batch size took, and stays traceable."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from dcrnn_fast import CrossRNN, SharingPlan, functional
from dcrnn_fast.ops import auto, backends, dispatch
from dcrnn_fast.ops.cross_rnn import INPUTS
from tests.operators.problems import cross_arguments

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="plants the C++ kernels as a choice, which are absent here"),
]

WEIGHTS = INPUTS[1:5]
OPTIONS, SIZES = (3, "gated", False, False), (1, 4, 2, 8, 2, 1, 4, 2, 8)
KEY = auto.Key("cpu", "cross_rnn", "float32", WEIGHTS, OPTIONS, (8, *SIZES), 64)
KERNEL, PLAIN = "dcrnn_fast.cross_rnn.default", "plain PyTorch"


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    monkeypatch.setattr(auto, "_choose", lambda *measurement: "reference")  # the expected results measure nothing
    torch._dynamo.reset()


@pytest.fixture
def model():
    return CrossRNN(SharingPlan.from_ratio("rows", num_tasks=2, dim=8, share_ratio=0.5, steps=3))


def plant(*choices, key=KEY):
    """Remember the choices, the first for batches up to 64 rows, the others for larger ones."""
    auto.known.update({key._replace(batch=64 * 4**i): auto.Choice(name, 0.5, {}) for i, name in enumerate(choices)})


class Compiled:
    """A function compiled into whole graphs, and what those compute by."""

    def __init__(self, function, **options):
        self.graphs = []
        self.call = torch.compile(function, backend=self.keep, fullgraph=True, **options)

    def keep(self, graph, inputs):
        self.graphs.append(by(graph))
        return graph


def by(graph):
    operators = [str(node.target) for node in graph.graph.nodes if "dcrnn_fast" in str(node.target)]
    return operators[0] if operators else PLAIN


@pytest.mark.parametrize(
    ("choices", "expected"),
    [((), PLAIN), (("cpp",), KERNEL), (("cpp", "cpp"), KERNEL), (("cpp", "reference"), PLAIN)],
    ids=str,
)
def test_a_compiled_graph_takes_what_every_measured_batch_size_took(model, choices, expected):
    plant(*choices)
    compiled = Compiled(model, dynamic=True)
    for rows in (5, 70, 300):
        x0 = torch.randn(rows, 8)
        torch.testing.assert_close(compiled.call(x0), model(x0))
    assert compiled.graphs == [expected], "one graph serves every batch size"


@pytest.mark.parametrize("change", [{"needs": ()}, {"kind": "bfloat16"}, {"options": (4, *OPTIONS[1:])}, {"sizes": (9, *SIZES)}], ids=str)
def test_a_choice_of_another_size_is_not_taken(model, change):
    plant("cpp", key=KEY._replace(**change))
    compiled = Compiled(model)
    compiled.call(torch.randn(5, 8))
    assert compiled.graphs == [PLAIN]


def test_a_graph_without_gradients_takes_the_choice_of_inference(model):
    plant("cpp", key=KEY._replace(needs=()))
    compiled = Compiled(model)
    with torch.no_grad():
        compiled.call(torch.randn(5, 8))
    assert compiled.graphs == [KERNEL]


def test_a_later_measurement_compiles_nothing_again(model):
    compiled, x0 = Compiled(model), torch.randn(5, 8)
    compiled.call(x0)
    plant("cpp")
    compiled.call(x0)
    assert compiled.graphs == [PLAIN]


def test_sizes_that_a_graph_leaves_open_stay_open():
    for dim in (10, 20):
        shared = round(0.3 * dim)
        plant("cpp", key=KEY._replace(needs=(), sizes=(dim, 1, shared, 2, dim, 2, 1, dim - shared, 2, dim)))
    compiled = Compiled(lambda arguments: functional.cross_rnn(**arguments), dynamic=True)
    for dim in (10, 20):
        compiled.call(cross_arguments(dim=dim, batch=32, share_ratio=0.3, dtype=torch.float32))
    assert compiled.graphs == [PLAIN]


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_graph_takes_the_choice_and_any_batch_size(model, strict):
    plant("cpp")
    rows = torch.export.Dim("rows")
    program = torch.export.export(model, (torch.randn(5, 8),), dynamic_shapes=({0: rows},), strict=strict)
    assert by(program.graph_module) == KERNEL
    x0 = torch.randn(17, 8)
    torch.testing.assert_close(program.module()(x0), model(x0))


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_graph_takes_the_choice_of_inference(model, strict):
    plant("cpp", key=KEY._replace(needs=()))
    plant("reference")
    program = torch.export.export(model, (torch.randn(5, 8),), strict=strict)
    assert by(program.graph_module) == KERNEL


def test_a_gather_in_a_graph_takes_its_choice():
    shared, private, index = torch.randn(3, 5), torch.randn(2, 4, 5), torch.zeros(2, 6, dtype=torch.int32)
    plant("cpp", key=auto.Key("cpu", "param_gather", "float32", (), (False,), (6, 3, 5, 2, 4, 5), 0))
    compiled = Compiled(functional.param_gather)
    torch.testing.assert_close(compiled.call(shared, private, index), functional.param_gather(shared, private, index))
    assert compiled.graphs == ["dcrnn_fast.param_gather.default"]


@pytest.fixture
def captured(monkeypatch):
    """While a CUDA graph is captured no values can be read, as here. Holds the backends that computed."""
    taken = []
    monkeypatch.setattr(auto, "may_read_values", lambda tensor: False)
    monkeypatch.setattr(dispatch, "implementation", lambda name: taken.append(name) or dispatch.IMPLEMENTATIONS[name])
    return taken


def test_a_captured_graph_takes_the_choice_and_measures_nothing(model, captured):
    plant("cpp")
    model(torch.randn(300, 8))
    model.double()(torch.randn(300, 8, dtype=torch.float64))
    assert captured == ["cpp", "reference"]
    assert len(auto.known) == 1


def test_a_captured_graph_takes_the_choice_of_its_own_batch_size(model, captured):
    plant("cpp", "reference")
    for rows in (40, 200, 2000):
        model(torch.randn(rows, 8))
    assert captured == ["cpp", "reference", "reference"], "no batch of 2000 was measured, and the others differ"


def test_under_checkpointing_a_compiled_graph_takes_the_reference(model):
    plant("cpp", key=KEY._replace(needs=("x0", *WEIGHTS)))
    compiled, x0 = Compiled(model), torch.randn(5, 8, requires_grad=True)
    checkpoint(compiled.call, x0, use_reentrant=False).sum().backward()
    assert compiled.graphs == [PLAIN]


def test_a_compiled_transform_takes_the_reference(model):
    for needs in ((), WEIGHTS, ("x0", *WEIGHTS)):
        plant("cpp", key=KEY._replace(needs=needs))
    compiled = Compiled(torch.func.grad(lambda x0: model(x0).sum()))
    compiled.call(torch.randn(5, 8))
    assert compiled.graphs == [PLAIN]
