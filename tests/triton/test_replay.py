"""A call of an operator that is like one before it repeats what that one did, with its own tensors."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from dcrnn_fast.ops import backends

pytest.importorskip("triton")

from torch.utils._python_dispatch import TorchDispatchMode
from triton.compiler import CompiledKernel

from dcrnn_fast import functional
from dcrnn_fast.kernels import INTERPRETED, replay
from dcrnn_fast.ops import autograd
from dcrnn_fast.ops import cross_rnn as full_cell
from tests.operators.precision import results
from tests.operators.problems import cross_arguments, differentiable

CASES = {
    "full": {},
    "full, untied with a context": {"tied": False, "context_dim": 3},
    "full, every state": {"return_states": True},
    "full, computed again": {"recompute": True},
    "full, one step": {"steps": 1},
    "full, without a gate": {"cell": "cross"},
    "low rank": {"rank": 3},
    "low rank, untied with a context": {"rank": 3, "tied": False, "context_dim": 3},
    "low rank, every state, computed again": {"rank": 3, "return_states": True, "recompute": True},
    "low rank, one step": {"rank": 3, "steps": 1},
}


class Interpreted(CompiledKernel):
    """Stands for a compiled kernel: takes a launch's arguments in order, tensors as addresses, and has the interpreter run them."""

    module = None

    def __init__(self, kernel, arguments):
        self.kernel = kernel
        self.dtypes = {name: value.dtype for name, value in arguments.items() if isinstance(value, torch.Tensor)}
        self.options = {name: value for name, value in arguments.items() if name not in kernel.arg_names}

    def __getitem__(self, grid):
        def run(*values):
            given = dict(zip(self.kernel.arg_names, values, strict=True))
            for name, dtype in self.dtypes.items():
                given[name] = tensor_at(given[name], dtype)
            self.kernel[grid](**given, **self.options)

        return run


def tensor_at(address, dtype):
    """A tensor that begins at an address; the interpreter reads no more of it."""
    if not address:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer((ctypes.c_char * dtype.itemsize).from_address(address), dtype=dtype)


@pytest.fixture
def repeats(monkeypatch):
    """Calls on the CPU are recorded and repeated; yields the number of calls that were repeated, by operator."""
    if not INTERPRETED:
        pytest.skip("the interpreter stands for a GPU")

    def launch(kernel, grid, **arguments):
        kernel[grid](**arguments)
        recorder = getattr(replay._current, "recorder", None)
        if recorder is not None:
            recorder.note_launch(kernel, Interpreted(kernel, arguments), grid, arguments)

    counts = []
    run = replay.Recording.run

    def counted(recording, arguments):
        counts.append(recording)
        return run(recording, arguments)

    for name, value in {"INTERPRETED": False, "DEVICE": "cpu", "launch": launch, "_kinds": {}}.items():
        monkeypatch.setattr(replay, name, value)
    monkeypatch.setattr(replay.Recording, "run", counted)
    return counts


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_repeated_step_computes_what_the_reference_computes(case, repeats):
    options = {name: case[name] for name in ("return_states", "recompute") if name in case}
    sizes = {name: value for name, value in case.items() if name not in options}
    for seed in (0, 1, 2):  # other values at other addresses
        given = {**cross_arguments(batch=5, dim=6, seed=seed, **sizes), **options}
        upstream = torch.randn(functional.cross_rnn(**given, backend="reference").shape, dtype=torch.float64)
        found = results(functional.cross_rnn, given, upstream, backend="triton")
        assert len(repeats) == (2 if seed == 2 else 0), "the third step repeats its forward and its backward"
        expected = results(functional.cross_rnn, given, upstream, backend="reference")
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_autocast_around_a_repeated_backward_changes_no_gradient(repeats):
    for seed, inside in enumerate((False, False, True)):
        given = cross_arguments(batch=5, dim=6, tied=False, dtype=torch.float32, seed=seed)
        found = {}
        for backend in ("triton", "reference"):
            inputs = differentiable(given)
            out = functional.cross_rnn(**{**given, **inputs}, backend=backend)
            with torch.autocast("cpu", torch.bfloat16, enabled=inside and backend == "triton"):
                found[backend] = torch.autograd.grad(out, list(inputs.values()), torch.ones_like(out))
        for ours, right in zip(*found.values(), strict=True):
            torch.testing.assert_close(ours, right)
    assert len(repeats) == 2


def left_over(x0):
    """What outlives a transform of torch.func: a tensor without memory of its own."""
    held = []

    def kept(x):
        held.append(x)
        return x.sum()

    torch.func.grad(kept)(x0)
    return held[0]


@pytest.mark.parametrize("lazy", [torch._neg_view, left_over])
def test_a_tensor_whose_memory_holds_other_values_goes_through_the_dispatcher(lazy, repeats):
    given = cross_arguments(batch=5, dim=6)
    for _ in range(2):
        functional.cross_rnn(**given, backend="triton")
    given["x0"] = lazy(given["x0"])
    found = functional.cross_rnn(**given, backend="triton")
    assert torch.equal(found, functional.cross_rnn(**given, backend="triton"))
    torch.testing.assert_close(found, functional.cross_rnn(**given, backend="reference"))


def test_a_launch_that_is_not_noted_gives_wrong_numbers(repeats, monkeypatch):
    monkeypatch.setattr(replay._Recorder, "note_launch", lambda *_: None)
    for seed in (0, 1, 2):
        given = cross_arguments(batch=5, dim=6, seed=seed)
        found = functional.cross_rnn(**given, backend="triton")
        assert torch.allclose(found, functional.cross_rnn(**given, backend="reference")) == (seed < 2)


class Watching(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_mode_that_watches_operators_meets_a_repeated_one(repeats):
    given = cross_arguments(batch=5, dim=6)
    for _ in range(2):
        functional.cross_rnn(**given, backend="triton")
    with Watching() as mode:
        functional.cross_rnn(**given, backend="triton")
    assert mode.names[-1] == "dcrnn_fast_triton.cross_rnn.default"


def test_a_profile_names_a_repeated_operator(repeats):
    given = cross_arguments(batch=5, dim=6)
    for _ in range(2):
        functional.cross_rnn(**given, backend="triton")
    with torch.profiler.profile() as profile:
        functional.cross_rnn(**given, backend="triton")
    assert "dcrnn_fast_triton::cross_rnn" in {event.key for event in profile.key_averages()}


def test_a_recording_leaves_out_what_nothing_reads_and_frees_what_nothing_reads_any_more():
    steps = [
        replay._Step("empty(2)", [], 1),
        replay._Step("empty(3)", [], 2),
        replay._Step("launch(t0, t1)", [0, 1], None),
        replay._Step("double(t1)", [1], 3),
        replay._Step("double(t3)", [3], 4),
    ]
    written = replay._source(1, steps, results=[3], common=[])
    lines = [" with on_device_of(t0):", "  t1 = empty(2)", "  launch(t0, t1)", "  t3 = double(t1)", "  del t1", "  return t3"]
    assert written.splitlines() == ["def repeated(t0):", *lines]


def test_an_empty_result_belongs_to_its_call(repeats):
    given = cross_arguments(batch=5, dim=6)
    inputs = full_cell.Arguments(**{**given, "keep": 0})
    for _ in range(2):
        functional.cross_rnn(**given, backend="triton")
    with torch._C._AutoDispatchBelowAutograd(), torch._C._DisableAutocast():  # as the eager path calls it
        one, other = (autograd.REPEATS["dcrnn_fast_triton"]("cross_rnn", inputs)() for _ in range(2))
    one[1].resize_(3)
    assert [tuple(result.shape) for result in other[1:]] == [(0,), (0,)]


def test_a_call_with_one_tensor_in_two_places_is_not_recorded(repeats, monkeypatch):
    given = cross_arguments(batch=2, dim=2, share_ratio=1)
    given["x0"] = given["shared_bias"]
    made = []
    monkeypatch.setattr(replay, "_Recorder", lambda inputs, kind=replay._Recorder: made.append(1) or kind(inputs))
    for _ in range(4):
        functional.cross_rnn(**given, backend="triton")
    assert (len(made), len(repeats)) == (0, 0)


def test_repeated_launches_are_those_that_triton_prepares():
    if torch.cuda.is_available() and backends.REASONS["triton"] is not None:
        pytest.skip("no Triton kernels here")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.triton.replayed"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "every change is prepared again"
