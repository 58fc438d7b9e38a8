"""The first evaluation of a new run is the constant's, so what the run keeps is never worse than that on the validation rows."""

import json

import numpy as np
import pytest
import torch

import dcrnn_fast
from dcrnn_fast.training import train
from dcrnn_fast.training.loop import start
from dcrnn_fast.training.loop.start import PART, RARE, constant_heads, start_rare_heads
from tests.training.runs import Notes
from tests.training.tiny import fake_validation, newest_checkpoint, tiny_config, write_table

RATES = {"click": 0.2, "buy": 0.05}


def within(relation, rates):
    """The probabilities [B, T] of a model within the block."""
    model = dcrnn_fast.DCRNN({"item": 50}, embedding_dim=4, tower_dims=(8,), tasks=("click", "buy"), relation=relation)
    with constant_heads(model, rates, ("click", "buy"), chain=relation == "chain"):
        return model.eval()(torch.arange(50).unsqueeze(1)).sigmoid().detach()


@pytest.mark.parametrize("relation", ["chain", "independent", "transfer"])
def test_a_model_predicts_each_tasks_base_rate_for_every_row_under_every_relation(relation):
    predicted = within(relation, RATES)
    torch.testing.assert_close(predicted, torch.tensor([0.2, 0.05]).expand(50, 2), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("rates", "expected"), [({}, [0.5, 0.5]), ({"click": 0.0, "buy": 1.0}, [1e-7, 1 - 1e-7])])
def test_a_task_of_no_known_rate_has_one_half_and_one_of_a_single_class_a_finite_logit(rates, expected):
    predicted = within("independent", rates)
    torch.testing.assert_close(predicted[0], torch.tensor(expected), rtol=1e-3, atol=0)


def test_after_the_block_the_heads_are_what_they_were_even_if_it_fails():
    model = dcrnn_fast.DCRNN({"item": 50}, embedding_dim=4, tower_dims=(8,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), constant_heads(model, RATES, model.tasks, chain=True):
        raise RuntimeError("stop")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("rates", [{"click": 0.004, "buy": 0.001}, {"click": 0.2, "buy": 0.0002}, {"click": 0.03, "buy": 0.2}])
@pytest.mark.parametrize("chain", [True, False])
def test_heads_of_rare_events_start_near_their_rates_and_the_others_as_they_are(rates, chain):
    """The last rates are of rows whose `buy` is unknown without a click: their quotient is no rate."""
    model = dcrnn_fast.DCRNN({"item": 50}, embedding_dim=4, tower_dims=(8,), tasks=("click", "buy"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_rare_heads(model, rates, ("click", "buy"), chain=chain)
    rate = torch.tensor([rates["click"], min(rates["buy"] / (rates["click"] if chain else 1), 1.0)])
    expected = torch.where(rate < RARE, PART * rate.logit(), before["head.private_bias"].squeeze(1))
    torch.testing.assert_close(model.head.private_bias.squeeze(1), expected)
    assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} <= {"head.private_bias"}


@pytest.mark.parametrize(("part", "least", "most"), [(PART, 1, 50), (0.0, 100, 1000)])
def test_a_run_need_not_learn_that_an_event_is_rare(part, least, most, tmp_path, monkeypatch):
    """Its log loss after two steps, over the constant's; without the rule it is far above."""
    monkeypatch.setattr(start, "PART", part)
    table = write_table(tmp_path, tasks=[{"name": "click", "column": "clicked"}], funnel=False)
    lines = (tmp_path / "tiny.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    rows = [",".join([*row[:5], str(int(at % 250 == 0)), ""]) for at, row in enumerate(cells)]
    (tmp_path / "tiny.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    train(tiny_config(table, optimiser__epochs=1, early_stopping__every_steps=2), tmp_path / "run")
    constant, later = (one["valid"]["click"]["log_loss"] for one in newest_checkpoint(tmp_path / "run").state["position"]["history"][:2])
    assert least < later / constant < most


def test_the_first_evaluation_of_a_run_is_the_constants(finished):
    state = newest_checkpoint(finished).state
    first = state["position"]["history"][0]
    assert (first["epoch"], first["step"], first["train_loss"]) == (0, 0, None)
    rates = json.loads((finished / "metrics.json").read_text())["valid"]
    for task in ("click", "buy"):
        assert first["valid"][task]["log_loss"] == pytest.approx(rates[task]["constant_log_loss"], rel=1e-6), task


def test_a_run_that_learns_nothing_keeps_the_constant_and_says_so(schema, tmp_path, monkeypatch):
    fake_validation(monkeypatch, [0.5, 0.5], log_losses=[9.0, 9.0])
    notes = Notes()
    result = train(tiny_config(schema), tmp_path / "run", report=notes)
    assert (result["train"]["best_step"], result["train"]["epochs"]) == (0, 2)
    for task, entry in result["test"].items():
        if task != "buy_given_click":
            assert entry["log_loss"] == pytest.approx(entry["constant_log_loss"], rel=1e-6), task
    assert [line for line in notes.lines if "the run keeps the constant" in line], notes.lines


def test_labels_of_pure_noise_never_end_above_the_constant_on_the_validation_rows(tmp_path):
    table = write_table(tmp_path, rows=600)
    lines = (tmp_path / "tiny.csv").read_text().splitlines()
    labels = [line.rsplit(",", 2)[1:] for line in lines[1:]]
    order = np.random.default_rng(0).permutation(len(labels))
    rows = [",".join([line.rsplit(",", 2)[0], *labels[at]]) for line, at in zip(lines[1:], order, strict=True)]
    (tmp_path / "tiny.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    valid = train(tiny_config(table), tmp_path / "run")["valid"]
    own, constant = (sum(valid[task][key] for task in ("click", "buy")) for key in ("log_loss", "constant_log_loss"))
    assert own <= constant * (1 + 1e-6)
