"""A report is one page that opens without a network, with nothing of a name that a browser would run; runs compare in numbers, too."""

import re
import shutil
from html.parser import HTMLParser

import pytest

from dcrnn_fast.errors import ConfigError
from dcrnn_fast.training import calibrate, compare, evaluate, train, write_report
from dcrnn_fast.training.evaluate.report import importance_plot
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


def test_each_task_has_its_metrics_with_intervals_and_differences(page):
    assert {"click", "buy", "buy_given_click"} <= set(page.cells)
    auc = page.cells[page.cells.index("click") + 3]
    value, low, high = map(float, re.fullmatch(r"(0\.\d{4})(0\.\d{4}) to (0\.\d{4})", auc).groups())
    assert low < value < high
    at = page.cells.index("b: click")
    assert page.cells[at + 1] == page.cells[at + 2] == "+0.0000+0.0000 to +0.0000", "the copy of a run"
    assert "not calibrated" in page.text


def test_a_calibrated_run_has_a_page_of_both_probabilities(copied, tmp_path):
    calibrate(copied)
    write_report([copied], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    served, own = (page.cells[page.cells.index(name) + 6] for name in ("click", "click, before calibration"))
    of_run = [evaluate(copied, as_served=given)["metrics"]["click"]["calibration"] for given in (True, False)]
    assert (served[:6], own[:6]) == tuple(f"{value:.4f}" for value in of_run)
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4


def test_a_run_without_curves_has_a_page_without_them(copied, tmp_path, monkeypatch, command):
    (copied / "curves.svg").unlink()
    monkeypatch.chdir(copied)
    code, out, _ = command("report", ".", "--output", tmp_path / "report.html")
    assert (code, f"{tmp_path / 'report.html'}" in out) == (0, True)
    page = Page((tmp_path / "report.html").read_text())
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2
    assert "<h1>tiny: run</h1>" in page.text  # the folder's name, though it is given as "."


@pytest.fixture(scope="module")
def others(schema, tmp_path_factory):
    """Runs of an epoch: on the same rows, on their clicks alone, on their clicks by another name, and on other rows."""
    folder = tmp_path_factory.mktemp("others")
    one = {"funnel": False, "tasks": [{"name": "click", "column": "clicked"}]}
    schemas = {
        "same": schema,
        "clicks": write_table(folder / "clicks", **one),
        "taps": write_table(folder / "taps", **one | {"tasks": [{"name": "tap", "column": "clicked"}]}),
        "other": write_table(folder / "other", seed=9),
    }
    for name, of_run in schemas.items():
        train(tiny_config(of_run, optimiser__epochs=1), folder / "runs" / name)
    return folder / "runs"


def test_a_comparison_has_the_metrics_and_their_differences_in_intervals(finished, others):
    found = compare([finished, others / "same"])
    assert (found["data"], found["split"], [run["name"] for run in found["runs"]]) == ("tiny", "test", ["finished", "same"])
    first, other = found["runs"]
    assert other["metrics"] == evaluate(others / "same")["metrics"]
    assert not first["differences"]
    for task, metric in ((task, metric) for task in ("click", "buy", "buy_given_click") for metric in ("auc", "log_loss", "calibration")):
        low, high = other["differences"][task][metric]["interval"]
        assert other["differences"][task][metric]["value"] == other["metrics"][task][metric] - first["metrics"][task][metric]
        assert low < other["differences"][task][metric]["value"] < high


def test_a_comparison_as_served_is_of_calibrated_probabilities(finished, copied, command):
    calibrate(copied)
    of_model, as_served = (compare([finished, copied], as_served=given)["runs"][1] for given in (False, True))
    assert of_model["differences"]["click"]["calibration"]["value"] == 0
    assert as_served["metrics"] == evaluate(copied, as_served=True)["metrics"]
    assert as_served["differences"]["click"]["calibration"]["value"] != 0
    code, out, _ = command("compare", finished, copied, "--as-served")
    assert (code, f"{as_served['differences']['click']['calibration']['value']:+.4f}" in out) == (0, True)


def test_a_run_that_trained_longer_is_better_beyond_chance(finished, others):
    longer, itself = compare([others / "same", finished, others / "same"], split="test")["runs"][1:]
    assert longer["differences"]["click"]["log_loss"]["interval"][1] < 0
    assert itself["differences"]["click"]["log_loss"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_the_command_prints_each_metric_with_its_difference(finished, others, command):
    code, out, err = command("compare", finished, others / "same", "--split", "valid")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "buy_given_click" in line and "log_loss" in line and "same" in line]
    found = compare([finished, others / "same"], split="valid")["runs"][1]
    less = found["differences"]["buy_given_click"]["log_loss"]
    numbers = found["metrics"]["buy_given_click"]["log_loss"], less["value"], *less["interval"]
    assert [f"{number:.4f}" in line for number in numbers] == [True] * 4
    code, out, _ = command("compare", finished, others / "clicks")  # runs of other tasks compare by those that they share
    assert code == 0
    assert list(compare([finished, others / "clicks"])["runs"][1]["differences"]) == ["click"]
    assert command("compare", finished, finished, "--backend", "none")[0] == 2


@pytest.mark.parametrize("name", ["taps", "other"])
def test_a_run_of_other_rows_or_tasks_is_not_compared(finished, others, name, tmp_path):
    said = f"{name} and finished have other test rows or no task in common; compare runs of the same rows"
    with pytest.raises(ConfigError, match=said):
        write_report([finished, others / name], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_name_is_no_formula_in_a_picture_and_has_a_bar_of_its_own():
    names = ["$a_$", "b\x07", "c" * 45 + "1", "c" * 45 + "2"]
    falls = {name: {"click": 0.1 * place} for place, name in enumerate(names, start=1)}
    drawn = importance_plot(falls, {name: {"click": [0.0, 0.5]} for name in names})
    assert drawn.count(b'id="ytick_') == len(names)


def test_a_notebook_shows_the_tasks_and_why_the_run_ended_in_escaped_text(schema, finished):
    result = train(tiny_config(schema), finished)
    result["data"]["name"], result["valid"]["<b>"] = "<i>", result["valid"]["click"]
    page, click = result._repr_html_(), result["test"]["click"]
    assert f"the weights of step {result['train']['best_step']} of 24 are kept; the run ended, as all epochs are trained" in page
    assert "".join(f"<td>{click[name]:.4f}</td>" for name in ("auc", "log_loss", "constant_log_loss")) in page
    assert re.findall("<tr><t[hd]>(.*?)<", page) == ["task", "click", "buy", "buy_given_click", "&lt;b&gt;"]
    assert "&lt;i&gt;" in page
    assert "<b>" not in page
