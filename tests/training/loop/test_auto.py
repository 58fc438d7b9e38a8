"""Where ``auto`` measures, a run measures its operators before the first step, and says once what it takes."""

import re
from timeit import timeit

import pytest

from dcrnn_fast.ops import auto_gpu, backends
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.layout import RunFolder
from tests.training.runs import Notes
from tests.training.tiny import tiny_config


@pytest.fixture
def on_gpu(monkeypatch):
    """A CPU that stands for a GPU, on which plain PyTorch and the C++ kernels are the candidates."""
    monkeypatch.setattr(auto_gpu, "known", {})
    monkeypatch.setattr(auto_gpu, "DEVICES", ("cpu",))
    monkeypatch.setattr(auto_gpu, "timer_of", lambda call, device: lambda: timeit(call, number=1))
    monkeypatch.setitem(backends.REASONS, "triton", "taken away by the test")


def run(schema, folder, **options):
    notes = Notes()
    metrics = train(tiny_config(schema, **{"optimiser.epochs": 1, **options}), folder, report=notes)
    return notes.lines, metrics["model"]["backend"]


def test_a_run_measures_before_its_first_step_and_says_so_once(schema, tmp_path, on_gpu):
    lines, backend = run(schema, tmp_path / "run", backend="auto")
    (line,) = [line for line in lines if "auto" in line]
    assert re.fullmatch(r"auto takes (\w+ for (1 size|[2-9] sizes|\d\d sizes)(, |$))+", line)
    assert backend.startswith("auto (")


def test_measuring_draws_no_random_number(schema, tmp_path, on_gpu, monkeypatch):
    """Both runs compute by plain PyTorch."""
    monkeypatch.setitem(backends.REASONS, "cpp", "taken away by the test")
    weights = []
    for name in ("auto", "reference"):
        run(schema, tmp_path / name, backend=name)
        weights.append(RunFolder(tmp_path / name).weights.read_bytes())
    assert weights[0] == weights[1]
