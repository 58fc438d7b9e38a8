"""``pytest bench/ --benchmark`` measures and writes results; without the flag each benchmark runs a small case, as a smoke test."""

import time

import pytest

from . import machine


def pytest_addoption(parser):
    parser.addoption("--benchmark", action="store_true", help="measure the full grid and write bench/results/")
    parser.addoption("--seconds", type=float, default=1.0, help="how long to measure one case (default 1)")
    parser.addoption("--minutes", type=float, help="start no new case after so many minutes; what was measured is kept")
    parser.addoption("--missing", action="store_true", help="measure the GPU cases alone that the results of this machine lack")


@pytest.fixture(scope="session")
def measuring(request):
    return request.config.getoption("--benchmark")


@pytest.fixture(scope="session")
def seconds(request, measuring):
    return request.config.getoption("--seconds") if measuring else 0.0


class Recorder:
    """Collects rows by file. Where it measures, they are written as they come: a long run that is cut off keeps what it has."""

    def __init__(self, config):
        self.config, self.tables, self.paths = config, {}, {}

    def add(self, name, key, figures):
        """A row of the file ``name``: ``key`` names the case, ``figures`` are what was measured."""
        row = {**key, **figures}
        self.tables.setdefault(name, []).append(row)
        if self.config.getoption("--benchmark"):
            self.paths[name] = machine.merge(name, [row], list(key))

    def lacks(self, name, key):
        """Whether a case is to be measured: without --missing, always."""
        return not self.config.getoption("--missing") or key not in machine.keys(name)


def pytest_configure(config):
    config.recorder = Recorder(config)
    minutes = config.getoption("--minutes")
    config.bench_ends = None if minutes is None else time.monotonic() + 60 * minutes


def pytest_runtest_setup(item):
    if item.config.bench_ends is not None and time.monotonic() > item.config.bench_ends:
        pytest.skip("the minutes of --minutes are used up")


@pytest.fixture(scope="session")
def record(request):
    return request.config.recorder.add


@pytest.fixture(scope="session")
def lacks(request):
    return request.config.recorder.lacks


@pytest.fixture
def keep(benchmark, measuring):
    """pytest-benchmark's own record of one candidate, for its history and comparisons; the ratios are not taken from it."""

    def run(candidate):
        benchmark.pedantic(candidate, rounds=5 if measuring else 1, iterations=1)

    return run


def pytest_terminal_summary(terminalreporter, config):
    recorder = config.recorder
    for name, rows in recorder.tables.items():
        columns = [column for column in dict.fromkeys(column for row in rows for column in row) if not column.endswith((", low", ", high"))]
        cells = [columns] + [[str(row.get(column, "")) for column in columns] for row in rows]
        widths = [max(len(line[c]) for line in cells) for c in range(len(columns))]
        terminalreporter.section(name)
        for line in cells:
            terminalreporter.write_line("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        for path in recorder.paths.get(name, []):
            terminalreporter.write_line(f"written to {path}")
