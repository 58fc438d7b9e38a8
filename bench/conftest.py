"""``pytest bench/ --benchmark`` measures and writes results; without the flag each benchmark runs a small case, as a smoke test."""

import pytest

from . import machine


def pytest_addoption(parser):
    parser.addoption("--benchmark", action="store_true", help="measure the full grid and write bench/results/")
    parser.addoption("--seconds", type=float, default=2.0, help="how long to measure one case (default 2)")


@pytest.fixture(scope="session")
def measuring(request):
    return request.config.getoption("--benchmark")


@pytest.fixture(scope="session")
def seconds(request, measuring):
    return request.config.getoption("--seconds") if measuring else 0.0


class Recorder:
    """Collects one file's rows; they are written when the session ends, and only where it measured and every case passed."""

    def __init__(self):
        self.rows = {}

    def add(self, file, row):
        self.rows.setdefault(file, []).append(row)


def pytest_configure(config):
    config.recorder = Recorder()


@pytest.fixture(scope="session")
def record(request):
    return request.config.recorder.add


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    for file, rows in config.recorder.rows.items():
        columns = list(rows[0])
        cells = [columns] + [[str(row[column]) for column in columns] for row in rows]
        widths = [max(len(line[c]) for line in cells) for c in range(len(columns))]
        terminalreporter.section(file)
        for line in cells:
            terminalreporter.write_line("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        if config.getoption("--benchmark") and exitstatus == 0:
            path = machine.write(file, {"machine": machine.description(), "rows": rows})
            terminalreporter.write_line(f"written to {path}")
