"""The Triton operators as citizens of PyTorch's stack: opcheck, compiling and exporting.

Under the interpreter the operators are opaque to the compiler, which has no part in interpreted kernels; what the compiler sees of them on
a GPU is read off a traced graph in a process of its own.
"""

import subprocess
import sys

import pytest
import torch

from dcrnn_fast import DCRNN, CrossRNN, SharingPlan, backends

from ..core.models import SIZES, batch
from ..core.problems import cross_arguments, differentiable

pytestmark = pytest.mark.skipif(backends.REASONS["triton"] is not None, reason=f"no Triton kernels here: {backends.REASONS['triton']}")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "index", "context")


def arguments_of(**shape):
    return {n: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for n, v in cross_arguments(dtype=torch.float32, **shape).items()}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{}, {"context_dim": 2}, {"cell": "cross"}, {"batch": 0}, {"tied": False, "share_ratio": 1}], ids=str)
def test_cross_rnn_passes_opcheck(options):
    from dcrnn_fast.kernels import cross_rnn_op

    arguments = arguments_of(**options)
    differentiable(arguments)
    for return_states, keep in ((False, 2), (True, 1)):
        call = *(arguments[name] for name in NAMES), arguments["steps"], arguments["cell"], return_states, keep
        torch.library.opcheck(cross_rnn_op.forward, call)
        tensors = [value.detach() if value is not None else None for value in call[:7]]
        out, states, kept = cross_rnn_op.forward(*tensors, *call[7:])
        states = out[:, 1 : arguments["steps"]] if return_states else states
        needs = 31 if tensors[-1] is None else 63
        backward = torch.randn_like(out), *tensors, states, kept, arguments["steps"], arguments["cell"], return_states, needs
        torch.library.opcheck(cross_rnn_op.backward, backward)


@pytest.mark.parametrize("trailing", [(5,), ()], ids=str)
def test_param_gather_passes_opcheck(trailing):
    from dcrnn_fast.kernels import param_gather_op

    shared, private = torch.randn(3, *trailing, device=DEVICE), torch.randn(2, 4, *trailing, device=DEVICE)
    index = torch.randint(0, 7, (2, 9), dtype=torch.int32, device=DEVICE)
    torch.library.opcheck(param_gather_op.forward, (shared.requires_grad_(), private.requires_grad_(), index))
    grad = torch.randn(2, 9, *trailing, device=DEVICE)
    torch.library.opcheck(param_gather_op.backward, (grad, index, 3, 4, torch.float32))


def test_a_whole_training_step_compiles_into_one_graph_with_a_dynamic_batch():
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2, steps=2, backend="triton", device=DEVICE)

    def loss(ids, dense, labels):
        return model.loss(model(ids, dense), labels)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for rows in (5, 12):
        arguments = [value.to(DEVICE) for value in batch(rows, num_dense=2)]
        expected, got = loss(*arguments), compiled(*arguments)
        torch.testing.assert_close(got, expected)
        gradients = (torch.autograd.grad(value, list(parameters.values())) for value in (got, expected))
        for name, a, b in zip(parameters, *gradients, strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"gradient of {name}: {text}")


def test_an_exported_program_takes_any_batch_size():
    model = CrossRNN(SharingPlan.from_ratio("trunk", 2, 16, 0.5), backend="triton", device=DEVICE).eval()
    program = torch.export.export(model, (torch.randn(5, 16, device=DEVICE),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    x0 = torch.randn(17, 16, device=DEVICE)
    torch.testing.assert_close(program.module()(x0), model(x0))


@pytest.mark.parametrize("batch_size", ["static", "dynamic"])
def test_the_compiler_sees_the_kernels_and_what_they_write(batch_size):
    """A graph traced without the interpreter holds each launch, and beside it just the buffers that the kernel writes."""
    done = subprocess.run([sys.executable, "-m", "tests.triton.traced_graph", batch_size], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    launches = done.stdout.splitlines()
    assert launches == [
        "cross_rnn_step: states, gates",
        "cross_rnn_step: states, gates",
        "cross_rnn_step: out, gates",
        "cross_rnn_backward_start: dx0, gradients, bias_sums",
        "cross_rnn_backward_step: d, dx0, gradients, bias_sums",
        "cross_rnn_backward_step: d, dx0, gradients, bias_sums",
        "cross_rnn_backward_step: dx0",
        "cross_rnn_backward_context: dcontext",
        "param_gather_sum: shared, private",
        "param_gather_sum: shared, private",
    ], done.stdout
