"""Where ``auto`` measures, a run measures its operators before the first step, and says once what it takes."""

import re
from functools import partial
from itertools import cycle

import pytest
import torch

from dcrnn_fast.ops import auto, backends
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.loop import trainer
from tests.training.runs import Notes
from tests.training.tiny import tiny_config


@pytest.fixture
def on_gpu(monkeypatch):
    """A CPU that stands for a GPU, on which plain PyTorch and the C++ kernels are the candidates."""
    monkeypatch.setattr(auto, "known", {})
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    monkeypatch.setitem(backends.REASONS, "triton", "taken away by the test")


@pytest.fixture
def kernels_win(monkeypatch):
    """Every candidate but plain PyTorch takes a tenth of its time."""
    if backends.REASONS["cpp"] is not None:
        pytest.skip("the C++ kernels, which win, are absent here")
    times = cycle((0.1, 1.0))  # plain PyTorch comes last
    monkeypatch.setattr(auto, "timer_of", lambda call, device: lambda: next(times))


def run(schema, folder, **options):
    notes = Notes()
    metrics = train(tiny_config(schema, **{"optimiser.epochs": 1, **options}), folder, report=notes)
    return notes.lines, metrics["model"]["backend"]


def test_a_run_measures_before_its_first_step_and_says_so_once(schema, tmp_path, on_gpu):
    lines, backend = run(schema, tmp_path / "run", backend="auto")
    (line,) = [line for line in lines if "auto" in line]
    assert re.fullmatch(r"auto takes (\w+ for (1 size|[2-9] sizes|\d\d sizes)(, |$))+", line)
    assert backend.startswith("auto (")


def test_the_graph_of_a_first_run_holds_the_kernel_that_was_measured(schema, tmp_path, on_gpu, kernels_win, monkeypatch):
    operators = []

    def keep(graph, inputs):
        operators.append([str(node.target) for node in graph.graph.nodes if str(node.target).startswith("dcrnn_fast.")])
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    _, backend = run(schema, tmp_path / "run", backend="auto", compile=True)
    assert backend == "auto (cpp)"
    assert operators
    assert all("cross_rnn.default" in found[0] for found in operators), operators


def test_what_evaluation_computes_is_measured_before_the_first_step(schema, tmp_path, on_gpu, kernels_win, monkeypatch):
    measured, at_start = trainer.measured_backends, []

    def counted(*arguments):
        found = measured(*arguments)
        at_start.extend(auto.known)
        return found

    monkeypatch.setattr(trainer, "measured_backends", counted)
    run(schema, tmp_path / "run", backend="auto", **{"optimiser.batch_size": 8})
    assert {key.batch for key in at_start if not key.needs and key.batch} > {key.batch for key in at_start if key.needs and key.batch}
    assert set(auto.known) == set(at_start), "nothing was measured later"


def test_measuring_draws_no_random_number(schema, tmp_path, on_gpu, monkeypatch):
    """Both runs compute by plain PyTorch."""
    monkeypatch.setitem(backends.REASONS, "cpp", "taken away by the test")
    weights = []
    for name in ("auto", "reference"):
        run(schema, tmp_path / name, backend=name)
        weights.append(RunFolder(tmp_path / name).weights.read_bytes())
    assert weights[0] == weights[1]
