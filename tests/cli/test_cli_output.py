import io

import pytest
from rich.console import Console
from rich.text import Text

from dcrnn_fast.cli import progress, row_progress
from dcrnn_fast.cli.progress import LiveReport, PlainReport, choose_report
from dcrnn_fast.cli.tables import Sheet, metrics_sheet, output_console, print_sheet, segments_sheet
from dcrnn_fast.training import Report

RECORD = {
    "epoch": 2,
    "step": 20,
    "train_loss": 0.25,
    "valid": {"click": {"auc": 0.75, "log_loss": 0.5}, "buy": {"auc": None, "log_loss": 0.125}},
}
ENTRY = {"rows": 1200, "positives": 30, "auc": 0.75, "log_loss": 0.5, "calibration": None}


def pipe():
    return Console(file=io.StringIO(), width=160)


def test_a_plain_report_is_one_line_an_evaluation_without_control_codes():
    console = pipe()
    report = PlainReport(console)
    report.start(epochs=3, total_steps=30, step=0)
    report.step(step=1, epoch=1, rows_per_second=10.0)
    report.evaluation(RECORD, epochs=3, rows_per_second=12345.6, best=True)
    report.close()
    (line,) = console.file.getvalue().splitlines()
    assert "\x1b" not in line
    for text in ("epoch 2/3", "0.2500", "12,346 rows/s", "auc 0.7500", "auc undefined", "(best)"):
        assert text in line


def test_a_live_report_shows_epoch_steps_rows_per_second_and_the_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    report = LiveReport(console)
    report.start(epochs=3, total_steps=30, step=0)
    report.step(step=5, epoch=1, rows_per_second=4321.0)
    report.close()
    shown = console.file.getvalue()
    assert "epoch 1/3" in shown
    assert "5/30" in shown
    assert "4,321 rows/s, at most" in shown, "a run may stop early"
    assert ":--" in shown or "0:00" in shown


@pytest.mark.parametrize("kind", [PlainReport, LiveReport])
def test_rows_that_are_prepared_are_told_of_every_five_seconds(kind, monkeypatch):
    console, now = pipe(), iter([0.0, 1.0, 4.0, 6.0, 10.0, 11.5])
    monkeypatch.setattr(row_progress.time, "monotonic", lambda: next(now))
    report = kind(console)
    for done in (0, 100, 400):
        report.preparing("reading rows", done, 1000)
    assert console.file.getvalue() == ""
    for done in (600, 900):
        report.preparing("reading rows", done, 1000)
    report.preparing("encoding rows", 0, None)
    assert console.file.getvalue() == "reading rows: 600 of 1,000, 4 s left\nencoding rows: 0\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "ci", "expected"), [(Terminal(), "", LiveReport), (Terminal(), "true", PlainReport), (io.StringIO(), "", PlainReport)]
)
def test_the_bar_is_for_terminals_that_are_no_cis(monkeypatch, stream, ci, expected):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=stream))
    assert type(choose_report()) is expected
    assert type(choose_report(quiet=True)) is Report


@pytest.mark.parametrize("terminal", [False, True])
def test_at_80_columns_the_names_of_a_table_break_and_no_number_is_cut(monkeypatch, terminal):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_console().width == 160, "a pipe's"
    monkeypatch.setenv("COLUMNS", "80")
    numbers = {"rows": 19_200_000, "positives": 2_860_123, "auc": 0.6203, "log_loss": 0.4094, "calibration": 1.0293, "gauc": 0.5432}
    console = Console(file=io.StringIO(), force_terminal=terminal)
    print_sheet(console, metrics_sheet("shop, test rows", {"conversion_given_visit": numbers | {"role": "CTCVR"}}))
    shown = console.file.getvalue().splitlines()
    assert max(len(Text.from_ansi(line)) for line in shown) <= 80
    row = next(line for line in shown if "conversion_" in line)
    for number in ("CTCVR", "19,200,000", "2,860,123", "0.6203", "0.4094", "1.0293", "0.5432"):
        assert number in row
    assert "given_visit" in shown[shown.index(row) + 1]
    narrow = Console(file=io.StringIO(), width=20)  # a table that fits no console is wider than it, and still whole
    print_sheet(narrow, Sheet("wide", {"name": False, "AUC": True, "log loss": True}, [("unbreakable" * 3, "0.1234", "0.5678")]))
    (row,) = [line for line in narrow.file.getvalue().splitlines() if "0.1234" in line]
    assert row.replace("|", " ").split() == ["unbreakable" * 3, "0.1234", "0.5678"]


def test_a_table_by_segment_escapes_control_characters():
    metrics = ENTRY | {"label_mean": 0.25, "prediction_mean": 0.5}
    values = [{"value": "a\n\x1b[31m[bold]"}, {"value": "b" * 99}, {"value": None, "values": 1200}]
    sheet = segments_sheet("city", [value | {"metrics": {"click": metrics}} for value in values])
    assert [row[0] for row in sheet.rows] == ["a\\n\\x1b[31m[bold]", "b" * 37 + "...", "(1,200 others)"]
    console = pipe()
    print_sheet(console, sheet)
    assert "a\\n\\x1b[31m[bold]" in console.file.getvalue()
