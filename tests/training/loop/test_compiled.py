"""Runs with ``compile: true``. Nothing here waits for a C++ compiler: tests/operators/test_stack.py compiles whole models."""

from functools import partial

import pytest
import torch

from dcrnn_fast.data import BlockLoader
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.gradient import BatchGradient, compiled
from dcrnn_fast.training.ranks import ONE
from tests.training.runs import interrupted, outcome
from tests.training.tiny import tiny_config

CPU = torch.device("cpu")


@pytest.mark.parametrize("cvr", ["entire_space", "ipw"])
def test_the_graph_has_the_loss_and_gradients_of_the_model_and_checks_ids(schema, dataset, monkeypatch, cvr):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = tiny_config(schema, model__dropout=0.0, loss__cvr=cvr)
    batch = next(BlockLoader(dataset.split("train"), 64, shuffle=True, seed=0).batches())
    torch.manual_seed(0)
    model = build_model(describe(config, dataset), device=CPU, backend="reference").train()
    found, graph = [], compiled(model, batch, "float32", CPU)
    for forward in (None, graph):
        loss, _ = BatchGradient(config, model, None, forward=forward, precision="float32", device=CPU, ranks=ONE)(batch, 0)
        found.append((loss, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}))
        model.zero_grad()
    torch.testing.assert_close(found[1], found[0])
    ids = batch.ids.clone()
    ids[0, 0] = 99
    with pytest.raises(IndexError, match=r"field 'shape' .* has id 99"):
        graph(ids, batch.dense)


def test_a_run_that_makes_a_graph_resumes_with_the_bits_of_any_run(schema, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    interrupted(tiny_config(schema, compile=True), tmp_path / "run", 5)
    train(tiny_config(schema, compile=True), tmp_path / "run", resume=True)
    for name in ("model.safetensors", "curves.svg", "checkpoints/step-00000024.safetensors"):
        assert outcome(tmp_path / "run")[name] == outcome(finished)[name], name


def test_a_machine_that_cannot_compile_is_named_and_no_folder_is_made(schema, tmp_path, monkeypatch):
    def compile(function, **_):
        def call(*inputs):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore\nlines")

        return call

    monkeypatch.setattr(torch, "compile", compile)
    said = r"compile is true, but torch\.compile does not work here: InvalidCxxCompiler: No working C\+\+ compiler found; it needs a C"
    with pytest.raises(ConfigError, match=said):
        train(tiny_config(schema, compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
