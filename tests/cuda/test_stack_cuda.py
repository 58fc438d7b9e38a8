"""The CUDA operators as citizens of PyTorch's stack: opcheck, compiling and exporting."""

import pytest
import torch

from dcrnn_fast import DCRNN, CrossRNN, SharingPlan

from ..core.models import SIZES, batch
from ..core.problems import cross_arguments, differentiable

NAMES = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "index")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{}, {"context_dim": 2}, {"cell": "cross"}, {"batch": 0}, {"tied": False, "share_ratio": 1}], ids=str)
def test_cross_rnn_passes_opcheck(cuda, options):
    arguments = cuda.of(cross_arguments(dtype=torch.float32, **options))
    differentiable(arguments)
    library = cuda.library
    tensors = [arguments[name] for name in NAMES]
    for return_states, save, tf32 in ((False, True, False), (True, False, True)):
        call = *tensors, arguments["steps"], arguments["cell"], arguments["context"], return_states, save, tf32
        torch.library.opcheck(library.cross_rnn.default, call)
        given = [value.detach() if isinstance(value, torch.Tensor) else value for value in call]
        out, gates = library.cross_rnn(*given)
        needs = 31 if given[8] is None else 63
        backward = torch.randn_like(out), gates, *given[:8], given[8], return_states, needs, tf32
        torch.library.opcheck(library.cross_rnn_backward.default, backward)


@pytest.mark.parametrize("trailing", [(5,), ()], ids=str)
def test_param_gather_passes_opcheck(cuda, trailing):
    shared, private = torch.randn(3, *trailing, device=cuda.device), torch.randn(2, 4, *trailing, device=cuda.device)
    index = torch.randint(0, 7, (2, 9), dtype=torch.int32, device=cuda.device)
    torch.library.opcheck(cuda.library.param_gather.default, (shared.requires_grad_(), private.requires_grad_(), index))
    grad = torch.randn(2, 9, *trailing, device=cuda.device)
    torch.library.opcheck(cuda.library.param_gather_backward.default, (grad.requires_grad_(), index, 3, 4))


def test_a_whole_training_step_compiles_into_one_graph_with_a_dynamic_batch(cuda):
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2, steps=2, backend="cuda", device=cuda.device)

    def loss(ids, dense, labels):
        return model.loss(model(ids, dense), labels)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for rows in (5, 12):
        arguments = [value.to(cuda.device) for value in batch(rows, num_dense=2)]
        expected, got = loss(*arguments), compiled(*arguments)
        torch.testing.assert_close(got, expected)
        gradients = (torch.autograd.grad(value, list(parameters.values())) for value in (got, expected))
        for name, a, b in zip(parameters, *gradients, strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"gradient of {name}: {text}")


def test_an_exported_program_takes_any_batch_size(cuda):
    model = CrossRNN(SharingPlan.from_ratio("trunk", 2, 16, 0.5), backend="cuda", device=cuda.device).eval()
    program = torch.export.export(model, (torch.randn(5, 16, device=cuda.device),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    x0 = torch.randn(17, 16, device=cuda.device)
    torch.testing.assert_close(program.module()(x0), model(x0))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"index": torch.zeros(2, 4, dtype=torch.int32)}, ValueError, "index: got shape"),
        ({"shared_bias": torch.zeros(2, 7)}, ValueError, "shared_bias: got shape"),
        ({"x0": torch.zeros(4, 5, dtype=torch.int32)}, (TypeError, ValueError), "x0|dtype"),
    ],
    ids=["steps", "index", "bias", "dtype"],
)
def test_the_dispatcher_refuses_what_the_kernels_cannot_take(cuda, change, error, words):
    """Without the checks in Python, as from C++. PyTorch 2.15 raises RuntimeError where earlier ones raise ValueError."""
    arguments = cuda.of({**cross_arguments(dtype=torch.float32), **change})
    with pytest.raises((RuntimeError, error) if isinstance(error, type) else (RuntimeError, *error), match=words):
        cuda.library.cross_rnn(*(arguments[name] for name in NAMES), arguments["steps"], "gated", None, False, False)
