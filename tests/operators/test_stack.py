"""Every backend in PyTorch's stack: opcheck, torch.compile, torch.export and autocast. Interpreted Triton operators are opaque to the
compiler: what it makes of them only a GPU shows."""

import pytest
import torch

from dcrnn_fast import DCRNN, CrossRNN, DCNv2, SharingPlan
from dcrnn_fast.ops.cross_rnn import tf32
from tests.nn.models import SIZES, batch

from .backend import every_gradient, on_every_backend, on_kernels
from .precision import float32_precision
from .problems import cross_arguments, differentiable


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


OPTIONS = [
    {},
    {"context_dim": 2},
    {"cell": "cross"},
    {"batch": 0},
    {"batch": 0, "rank": 3},
    {"tied": False, "share_ratio": 1},
    {"rank": 2, "context_dim": 2, "tied": False, "projection_share_ratio": 0.5},
]


@on_kernels
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_recurrence_passes_opcheck(backend, options):
    """In two of four ways to call it, or in one of two where a call is slow, by turns."""
    arguments = backend.of(cross_arguments(dtype=torch.float32, **options))
    differentiable(arguments)
    turn = OPTIONS.index(options) % 2
    ways = (False, True, False), (True, False, False), (True, True, True), (False, False, False)
    slow_ways = ways[0], (True, False, True)
    for return_states, saved, allow_tf32 in slow_ways[turn : turn + 1] if backend.is_slow else ways[turn::2]:
        given = {**arguments, "return_states": return_states, "allow_tf32": allow_tf32}
        torch.library.opcheck(backend.operator(arguments).default, (), {**given, "saved": saved})
        given = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in given.items()}
        out, activations = backend.operator(arguments)(**given, saved=saved)
        of_backward = torch.randn_like(out), activations, every_gradient(arguments)
        torch.library.opcheck(backend.operator(arguments, "_backward").default, of_backward, given)


@on_kernels
@pytest.mark.parametrize("shape", [{}, {"trailing": ()}, {"rows": 0}, {"shared": 0}], ids=str)
def test_param_gather_passes_opcheck(backend, shape):
    shared_rows, rows, trailing = shape.get("shared", 3), shape.get("rows", 9), shape.get("trailing", (5,))
    shared, private = torch.randn(shared_rows, *trailing, device=backend.device), torch.randn(2, 4, *trailing, device=backend.device)
    index = torch.randint(0, shared_rows + 4, (2, rows), dtype=torch.int32, device=backend.device)
    torch.library.opcheck(backend.operators.param_gather.default, (shared.requires_grad_(), private.requires_grad_(), index))
    grad = torch.randn(2, rows, *trailing, device=backend.device)
    torch.library.opcheck(backend.operators.param_gather_backward.default, (grad.requires_grad_(), index, shared_rows, 4))


@pytest.mark.parametrize(
    ("backend", "sharing", "relation", "rank"),
    [
        *((name, "rows", "chain", rank) for name in ("cpp", "triton", "cuda") for rank in (None, 3)),
        ("reference", "rows", "chain", 3),
        ("cpp", "trunk", "transfer", None),
    ],
    indirect=["backend"],
)
def test_a_training_step_compiles_into_one_graph_with_a_dynamic_batch(backend, sharing, relation, rank):
    """Inductor generates the code on a GPU. On a CPU, where its C++ compiler takes most of the time of a case, it does so for the default
    model's case; the others run the same graphs, of the forward and the backward, by PyTorch's operators. The first graph serves all
    numbers of rows."""
    compiler = "inductor" if backend.device != "cpu" or (backend.name, sharing, rank) == ("cpp", "rows", 3) else "aot_eager"
    options = {"steps": 2, "sharing": sharing, "relation": relation, "rank": rank, "tower_dims": (8, 4), "dense_bins": 0, "dropout": 0.0}
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2, **options, backend=backend.name, device=backend.device)

    def loss(ids, dense, labels):
        return model.loss(model(ids, dense), labels, sample_weight=dense[:, 0].abs())

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=compiler)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for rows in (5, 12):
        arguments = [value.to(backend.device) for value in batch(rows, num_dense=2)]
        with torch._dynamo.config.patch(error_on_recompile=True):
            expected, got = loss(*arguments), compiled(*arguments)
        torch.testing.assert_close(got, expected)
        gradients = (torch.autograd.grad(value, list(parameters.values())) for value in (got, expected))
        for name, a, b in zip(parameters, *gradients, strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"gradient of {name}: {text}")


@on_every_backend
@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
def test_a_compiled_and_an_exported_recurrence_take_any_batch_size(backend, rank):
    model = CrossRNN(SharingPlan.from_ratio("trunk", 2, 16, 0.5, rank=rank), backend=backend.name, device=backend.device).eval()
    batches = [torch.randn(rows, 16, device=backend.device) for rows in (5, 17)]
    program = torch.export.export(model, (batches[0],), dynamic_shapes=({0: torch.export.Dim("rows")},)).module()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for x0 in batches:
        torch.testing.assert_close(program(x0), model(x0))
        with torch._dynamo.config.patch(error_on_recompile=True):
            torch.testing.assert_close(compiled(x0), model(x0))


@pytest.mark.parametrize(("setting", "allowed"), [("tf32", True), ("ieee", False)])
def test_float32_products_use_tf32_where_pytorch_is_set_to_it(setting, allowed):
    with float32_precision(setting):
        assert tf32() is allowed


def test_under_autocast_a_module_takes_what_a_linear_layer_gives():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 8), DCNv2(8, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layers(torch.randn(5, 4))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layers.parameters() if p.requires_grad)


def test_a_stray_id_is_no_silent_read_in_a_compiled_model():
    """Id 11 of the second field is a row of the third in the merged table: the lookup must fail, not read it."""
    model = DCRNN(SIZES, embedding_dim=4, steps=1, tower_dims=(4,))
    compiled = torch.compile(model, fullgraph=True)
    ids = batch()[0]
    compiled(ids)
    ids[0, 1] = 11
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        compiled(ids)
