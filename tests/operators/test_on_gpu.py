"""What only a GPU shows of its backends: packages, captured graphs, streams, and more than 2^31 values."""

import pytest
import torch

from dcrnn_fast import CrossRNN, SharingPlan

from .backend import on_gpu_kernels
from .problems import cross_arguments, differentiable

pytestmark = [pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"), on_gpu_kernels]


@pytest.fixture(autouse=True)
def _as_users_run(backend):
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


def test_an_aoti_package_gives_the_numbers_of_the_module(backend, tmp_path):
    model = CrossRNN(SharingPlan.from_ratio("rows", 2, 64, 0.5), backend=backend.name, device="cuda").eval()
    x0 = torch.randn(300, 64, device="cuda")
    with torch.no_grad():
        program = torch.export.export(model, (x0,), dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=4096)},))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "cross.pt2"))
        torch.testing.assert_close(torch._inductor.aoti_load_package(path)(x0), model(x0))


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_a_captured_graph_gives_the_bits_of_a_call(backend, training):
    arguments = backend.of(cross_arguments(batch=300, dim=64, dtype=torch.float32))
    inputs = list(differentiable(arguments).values()) if training else []

    def run():
        out = backend.cross_rnn(**arguments)
        return (out, *torch.autograd.grad(out.sum(), inputs)) if training else (out,)

    expected = [value.clone() for value in run()]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for value in captured:
        value.detach().fill_(float("nan"))
    graph.replay()
    for got, want in zip(captured, expected, strict=True):
        assert torch.equal(got, want)


def test_a_call_runs_on_the_current_stream(backend):
    """The input is written on the stream after a long wait: a launch on another stream would read what was there before."""
    arguments = backend.of(cross_arguments(batch=300, dim=64, dtype=torch.float32))
    late, stream = arguments["x0"].clone(), torch.cuda.Stream()
    expected = backend.cross_rnn(**arguments)
    arguments["x0"].fill_(float("nan"))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        arguments["x0"].copy_(late)
        got = backend.cross_rnn(**arguments)
    stream.synchronize()
    assert torch.equal(got, expected)


def test_offsets_past_two_billion_values_are_right(backend):
    dim, tasks = 1024, 2
    rows = 2**31 // (dim * tasks) + 300
    if torch.cuda.mem_get_info()[0] < 30 * 2**30:
        pytest.skip("needs 30 GiB of free GPU memory")
    plan = SharingPlan.from_ratio("rows", tasks, dim, 0.5, steps=1)
    module = CrossRNN(plan, backend=backend.name, device="cuda", dtype=torch.bfloat16)
    x0 = torch.randn(rows, dim, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        torch.testing.assert_close(module(x0)[:, -200:], module(x0[-200:]))


@pytest.mark.parametrize("tiles", ["small", "large"])
@pytest.mark.parametrize(("rows", "dim", "context_dim"), [(300, 64, 0), (4097, 72, 24), (5003, 33, 3), (150_000, 256, 0)], ids=str)
def test_one_launch_for_all_steps_reads_what_it_wrote_in_every_run(backend, rows, dim, context_dim, tiles):
    """The bits of a launch for each step, which orders its reads after its writes by itself. With the same tiles, both add alike.

    A state that a program reads too early, or from a stale cache, is another state: each run may show it, or may not.
    """
    if backend.name == "triton":
        pytest.skip("Triton launches each step")
    arguments = backend.of(cross_arguments(batch=rows, dim=dim, context_dim=context_dim, steps=6, dtype=torch.bfloat16))
    for return_states in (False, True):  # two states that are overwritten in turn, or one for each step
        with torch.no_grad(), backend.kernel_override(schedule="step", tiles=tiles):
            expected = backend.cross_rnn(**arguments, return_states=return_states)
        assert expected.isfinite().all()
        with torch.no_grad(), backend.kernel_override(schedule="all_steps", tiles=tiles):
            wrong = torch.zeros((), dtype=torch.int64, device=expected.device)
            for _ in range(200):
                wrong += (backend.cross_rnn(**arguments, return_states=return_states) != expected).any()
        assert not wrong, f"{int(wrong)} of 200 runs differ"
