"""A report is one page that opens without a network, with nothing of a name that a browser would run."""

import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dcrnn_fast.cli.commands import app
from dcrnn_fast.data import PackedMeta, PackedSplit
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import train, write_report
from dcrnn_fast.training.evaluate import importance as of_inputs
from dcrnn_fast.training.evaluate.importance import importance, importance_plot
from tests.training.tiny import tiny_config, write_table


class Page(HTMLParser):
    """The tags of a page with their attributes, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    """Of a run whose name a browser must not read, and of a copy of it."""
    folder = tmp_path_factory.mktemp("report")
    runs = [shutil.copytree(finished, folder / name) for name in ("<script>a", "b")]
    write_report(runs, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_page_asks_for_nothing_and_runs_nothing(page):
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "a")]
    sources = [given["src"] for tag, given in page.tags if tag == "img"]
    assert len(sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_each_task_has_its_metrics_with_intervals(page):
    assert {"click", "buy", "buy_given_click"} <= set(page.cells)
    auc = page.cells[page.cells.index("click") + 3]
    value, low, high = map(float, re.fullmatch(r"(0\.\d{4})(0\.\d{4}) to (0\.\d{4})", auc).groups())
    assert low < value < high


def test_a_run_that_predicts_the_same_differs_by_nothing(page):
    at = page.cells.index("b: click")
    assert page.cells[at + 1] == page.cells[at + 2] == "+0.0000+0.0000 to +0.0000"


def test_a_page_says_whose_probabilities_it_shows(page, finished, tmp_path):
    write_report([finished], tmp_path / "report.html", as_served=True)
    assert "The probabilities are those that" in (tmp_path / "report.html").read_text()
    assert "not calibrated" in page.text


def test_a_run_without_curves_has_a_page_without_them(copied, tmp_path, monkeypatch):
    (copied / "curves.svg").unlink()
    monkeypatch.chdir(copied)
    write_report(["."], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2
    assert "<h1>tiny: run</h1>" in page.text  # the folder's name, though it is given as "."


def test_a_run_of_other_rows_is_not_compared(finished, tmp_path):
    train(tiny_config(write_table(tmp_path / "other", seed=9), optimiser__epochs=1), tmp_path / "run")
    with pytest.raises(ConfigError, match="run and finished have other test rows or no task in common"):
        write_report([finished, tmp_path / "run"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("runs", "output"), [("runs/a", "report.html"), ([], "report.html")])
def test_runs_are_a_sequence_of_folders(runs, output, tmp_path):
    with pytest.raises(ConfigError, match="expected a sequence of run folders"):
        write_report(runs, tmp_path / output)


def test_a_report_is_an_html_file(finished, tmp_path):
    with pytest.raises(DataError, match=r"output .*expected the path of a \.html file"):
        write_report([finished], tmp_path / "report.pdf")


def test_the_command_writes_the_page(finished, tmp_path):
    done = CliRunner().invoke(app, ["report", str(finished), "--output", str(tmp_path / "report.html")])
    assert (done.exit_code, done.stdout) == (0, f"Report: {tmp_path / 'report.html'}\n")


def test_the_input_that_a_model_reads_is_the_one_that_matters(monkeypatch):
    rng = np.random.default_rng(0)
    ids, dense = rng.integers(0, 2, (1000, 2)).astype(np.int32), rng.normal(size=(1000, 1)).astype(np.float32)
    fields = {"read": 2, "not_read": 2}
    meta = PackedMeta("shop", ("click",), False, "independent", fields, ("read",), None, False, {"test": 1000}, {}, {}, {}, 1)
    rows = PackedSplit("test", ids=ids, dense=dense, labels=ids[:, :1].astype(np.float32), weight=None, group=None)
    dataset = SimpleNamespace(meta=meta, split=lambda name: rows)
    run = SimpleNamespace(dataset=dataset, config=SimpleNamespace(threads=1), model=None, device=torch.device("cpu"))
    # by the number beside the field, too: a column is shuffled as both
    monkeypatch.setattr(of_inputs, "finite_predictions", lambda model, of, *_: {"click": 0.25 + of.ids[:, 0] / 2 + 0 * of.dense[:, 0]})
    falls, counted = importance(run, "test")
    assert counted == 1000
    assert falls["read"]["click"] == pytest.approx(0.5, abs=0.05)
    assert falls["not_read"] == {"click": 0.0}


def test_a_name_is_no_formula_in_a_picture_and_long_names_have_bars_of_their_own():
    names = ["$a_$", "b\x07", "c" * 45 + "1", "c" * 45 + "2"]
    drawn = importance_plot({name: {"click": 0.1 * place} for place, name in enumerate(names, start=1)})
    assert drawn.count(b'id="ytick_') == len(names)
