"""What `train` returns, as a notebook shows it."""

import re

from dcrnn_fast.training import train
from tests.training.tiny import tiny_config


def test_a_notebook_shows_the_tasks_the_kept_step_and_why_the_run_ended(schema, finished):
    result = train(tiny_config(schema), finished)
    page = result._repr_html_()
    at, click = result["train"], result["test"]["click"]
    assert f"the weights of step {at['best_step']} of 24 are kept; the run ended, as all epochs are trained" in page
    row = [f"<td>{cell}</td>" for cell in ("click", *(f"{click[name]:.4f}" for name in ("auc", "log_loss", "constant_log_loss")))]
    assert row[0] in page
    assert "".join(row[1:]) in page
    assert re.findall("<tr><td>(.*?)<", page) == ["task", "click", "buy", "buy_given_click"]


def test_names_are_escaped(schema, finished):
    result = train(tiny_config(schema), finished)
    result["data"]["name"], result["valid"]["<b>"] = "<i>", result["valid"]["click"]
    page = result._repr_html_()
    assert "&lt;b&gt;" in page
    assert "&lt;i&gt;" in page
    assert "<b>" not in page
