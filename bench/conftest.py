"""``pytest bench/ --benchmark`` measures. Without the flag every benchmark runs one small case, as a smoke test.

Every test of a time also runs our candidate by pytest-benchmark, whose options then save, compare and plot it.
"""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

from dcrnn_fast.ops import backends

from . import machine, results
from .cases import COLUMNS
from .comparison import Comparison, free, ours

FOLDER = Path(__file__).parents[1] / "build" / "bench"


def pytest_addoption(parser):
    group = parser.getgroup("bench")
    group.addoption("--benchmark", action="store_true", help="measure, print a table and write results")
    group.addoption("--grid", choices=("headline", "full"), default="headline", help="a few telling cases (minutes) or all (hours)")
    group.addoption("--device", choices=("cpu", "cuda"), help="where to measure (default: the GPU if there is one, or else the CPU)")
    group.addoption("--results", type=Path, default=FOLDER, metavar="FOLDER", help="where results are written (default: build/bench)")
    group.addoption("--record", action="store_true", help="write to bench/results, the results that are committed")
    group.addoption("--machine", default="", metavar="NAME", help="a further machine, whose results are in a file of its own")
    group.addoption("--missing", action="store_true", help="measure only the cases that the results of this machine lack")
    group.addoption("--without", default="", metavar="BACKENDS", help="leave these backends out, with commas between")
    group.addoption("--seconds", type=float, default=2.0, help="how long to measure a case (default: 2)")


class Session:
    """The options, and the rows that were measured. Each row is written at once: a run that is cut off keeps what it has."""

    def __init__(self, config):
        option = config.getoption
        self.measuring = option("--benchmark")
        self.grid = option("--grid") if self.measuring else "smoke"
        self.seconds = option("--seconds") if self.measuring else 0.0
        self.folder = results.COMMITTED if option("--record") else option("--results").resolve()
        self.missing = option("--missing")
        self.machine = f"_{option('--machine')}" if option("--machine") else ""
        for name in filter(None, option("--without").split(",")):
            backends.REASONS[name] = "left out by --without"
        present = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
        self.devices = [option("--device")] if option("--device") else present[:1] if self.measuring else present
        self.rows = []

    def path(self, device):
        card = "cpu" if device == "cpu" else re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-")
        return self.folder / f"benchmarks_{card}{self.machine}.json"

    def save(self, name, device, case, figures):
        row = {**case, **figures}
        self.rows.append((name, row))
        if self.measuring:
            results.merge(self.path(device), name, row)

    def has(self, name, device, case):
        same = [row for row in results.rows_of_this_machine(self.path(device), name) if results.case_of(row) == case]
        wanted = ours(device, self.grid)  # one that failed is measured again, and so is one that was left out
        return any(all(any(column.startswith(f"{one}, ") for column in row) for one in wanted) for row in same)


def pytest_configure(config):
    config.bench = session = Session(config)
    if not session.measuring:
        config.option.benchmark_disable = True  # a smoke test calls the candidate once and times nothing
    elif config.option.benchmark_columns is None:
        config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]


def pytest_generate_tests(metafunc):
    """A benchmark's cases are those that its file's ``cases(grid, device)`` lists; the full grid starts with the headline cases."""
    session, parameters = metafunc.config.bench, {}
    for device in session.devices:
        for grid in ("headline", "full") if session.grid == "full" else (session.grid,):
            for case in metafunc.module.cases(grid, device):
                ordered = {column: case[column] for column in COLUMNS if column in case}
                parameters[f"{device} {results.words(ordered)}".replace(" ", "-").replace("=", "")] = (device, ordered)
    metafunc.parametrize(("device", "case"), list(parameters.values()), ids=list(parameters))


def name_of(module):
    """The benchmark's name: "cross_rnn" for the file test_cross_rnn.py."""
    return module.__name__.rpartition("test_")[2]


@pytest.fixture
def untimed_comparison(request, device, case):
    """An empty comparison for the case. Where there is no kernel of ours to compare, or nothing left to measure, the test is skipped."""
    session, name = request.config.bench, name_of(request.module)
    if not ours(device, session.grid):
        reasons = [f"{name}: {backends.REASONS[name]}" for name, backend in backends.BACKENDS.items() if device in backend.devices]
        pytest.skip(f"no kernels to measure on {device}: {'; '.join(reasons)}")
    if session.missing and session.has(name, device, case):
        pytest.skip("measured already")
    torch.manual_seed(0)
    torch._dynamo.reset()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if case["dtype"] == "tf32" else "highest")  # the way that Inductor reads it
    yield Comparison(case, device, grid=session.grid, seconds=session.seconds, save=partial(session.save, name, device, case))
    torch.set_float32_matmul_precision(before)
    free()


@pytest.fixture
def comparison(request, untimed_comparison, benchmark):
    """A comparison whose first candidate of ours pytest-benchmark times too; its table has a group for each file."""
    untimed_comparison.benchmark = benchmark
    benchmark.group = name_of(request.module)
    return untimed_comparison


def pytest_terminal_summary(terminalreporter, config):
    session = config.bench
    if not session.measuring:
        return
    for reason in dict.fromkeys(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(reason)
    if session.rows:
        terminalreporter.section("our time or memory over a peer's: below 1, ours is better; in brackets the quartiles over the rounds")
        for line in results.table(session.rows):
            terminalreporter.write_line(line)
        terminalreporter.write_line(machine.line(machine.description()))
        terminalreporter.write_line(f"results: {session.folder}")
