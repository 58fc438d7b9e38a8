"""A report is one page that opens without a network, with nothing of a name that a browser would run; runs compare in numbers, too."""

import re
import shutil
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from dcrnn_fast.cli.commands import app
from dcrnn_fast.errors import ConfigError, DataError
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


def test_a_calibrated_run_has_a_page_of_calibrated_probabilities_and_of_its_own(copied, tmp_path):
    calibrate(copied)
    write_report([copied], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    served, own = (page.cells[page.cells.index(name) + 6] for name in ("click", "click, before calibration"))
    of_run = [evaluate(copied, as_served=given)["metrics"]["click"]["calibration"] for given in (True, False)]
    assert (served[:6], own[:6]) == tuple(f"{value:.4f}" for value in of_run)
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4


def test_a_run_without_curves_has_a_page_without_them(copied, tmp_path, monkeypatch):
    (copied / "curves.svg").unlink()
    monkeypatch.chdir(copied)
    write_report(["."], tmp_path / "report.html")
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


def test_a_comparison_computes_with_the_backend_that_is_named(finished, command):
    said = "backend='none': expected"
    with pytest.raises(ConfigError, match=said):
        compare([finished, finished], backend="none")
    code, _, err = command("compare", finished, finished, "--backend", "none")
    assert (code, said in err) == (2, True)


def test_a_run_that_trained_longer_is_better_beyond_chance_and_not_better_than_itself(finished, others):
    longer, itself = compare([others / "same", finished, others / "same"], split="test")["runs"][1:]
    assert longer["differences"]["click"]["log_loss"]["interval"][1] < 0
    assert itself["differences"]["click"]["log_loss"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_runs_of_other_tasks_compare_by_those_that_they_share(finished, others, command):
    code, out, _ = command("compare", finished, others / "clicks")
    assert code == 0
    assert list(compare([finished, others / "clicks"])["runs"][1]["differences"]) == ["click"]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert [line[2] for line in lines if line[:2] == ["click", "auc"]] == ["finished", "clicks"]
    assert [line[2] for line in lines if line[:2] == ["buy", "auc"]] == ["finished"]


def test_the_command_prints_each_metric_of_each_run_with_the_difference_and_its_interval(finished, others, command):
    code, out, err = command("compare", finished, others / "same", "--split", "valid")
    assert (code, err) == (0, "")
    assert out.startswith("tiny, valid rows; differences from finished")
    first, other = [re.split(r" *\| *", line.strip("| ")) for line in out.splitlines() if "buy_given_click" in line and "log_loss" in line]
    found = compare([finished, others / "same"], split="valid")["runs"][1]
    less = found["differences"]["buy_given_click"]["log_loss"]
    assert first[2] == "finished"
    assert other[2:] == [
        "same", f"{found['metrics']['buy_given_click']['log_loss']:.4f}", f"{less['value']:+.4f}",
        f"{less['interval'][0]:+.4f} to {less['interval'][1]:+.4f}",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["taps", "other"])
def test_a_run_of_other_rows_or_tasks_is_not_compared(finished, others, name, tmp_path, command):
    said = f"{name} and finished have other test rows or no task in common; compare runs of the same rows"
    with pytest.raises(ConfigError, match=said):
        write_report([finished, others / name], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    assert command("compare", finished, others / name) == (2, "", f"error: {said}\n")


def test_one_run_is_not_compared(finished):
    with pytest.raises(ConfigError, match="runs: got 1, expected at least 2 run folders; `evaluate` is for one"):
        compare([finished])


@pytest.mark.parametrize(("runs", "output"), [("runs/a", "report.html"), ([], "report.html")])
def test_runs_are_a_sequence_of_folders(runs, output, tmp_path):
    with pytest.raises(ConfigError, match=r"expected (a sequence of|at least 1) run folders"):
        write_report(runs, tmp_path / output)


def test_a_report_is_an_html_file(finished, tmp_path):
    with pytest.raises(DataError, match=r"output .*expected the path of a \.html file"):
        write_report([finished], tmp_path / "report.pdf")


def test_the_command_writes_the_page(finished, tmp_path):
    done = CliRunner().invoke(app, ["report", str(finished), "--output", str(tmp_path / "report.html")])
    assert (done.exit_code, done.stdout) == (0, f"Report: {tmp_path / 'report.html'}\n")


def test_a_name_is_no_formula_in_a_picture_and_long_names_have_bars_of_their_own():
    names = ["$a_$", "b\x07", "c" * 45 + "1", "c" * 45 + "2"]
    falls = {name: {"click": 0.1 * place} for place, name in enumerate(names, start=1)}
    drawn = importance_plot(falls, {name: {"click": [0.0, 0.5]} for name in names})
    assert drawn.count(b'id="ytick_') == len(names)
