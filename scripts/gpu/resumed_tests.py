"""A pytest plugin: leaves out the tests that passed in an earlier call, so that a call of ten minutes goes on where the last one ended.

It writes the name of each test that passed to the file that ``--passed`` names, at once: the run may be ended at any time. Files that
matter most come first, on each worker of pytest-xdist too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FIRST = (
    "test_param_gather.py",
    "test_cross_rnn.py",
    "test_cross_rnn_kept.py",
    "test_cross_rnn_cuda.py",
    "test_on_gpu.py",
    "test_planted_defects.py",
    "test_stack.py",
)
"""Of tests/operators."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--passed``."""
    parser.addoption("--passed", type=Path, required=True, help="the file of the tests that passed; it grows")


def pytest_configure(config: pytest.Config) -> None:
    """Take part."""
    config.pluginmanager.register(Resumed(config))


class Resumed:
    """What passed before, and what passes now."""

    def __init__(self, config: pytest.Config) -> None:
        self.path: Path = config.getoption("--passed")
        self.worker: dict[str, Any] | None = getattr(config, "workerinput", None)
        known = self.path.read_text(encoding="utf-8").splitlines() if self.worker is None and self.path.is_file() else []
        self.before = set(known if self.worker is None else self.worker["passed"])
        self.not_passed: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist what passed. One that starts later, for a crashed one, must collect the same tests."""
        node.workerinput["passed"] = sorted(self.before)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what passed before, and put the rest in order."""
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self.before])
        places = {name: place for place, name in enumerate(FIRST)}
        left = sorted((item for item in items if item.nodeid not in self.before), key=lambda item: places.get(item.path.name, len(FIRST)))
        workers = 1 if self.worker is None else self.worker["workercount"]
        items[:] = [item for first in range(workers) for item in left[first::workers]]  # each worker begins with one of these parts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that passed, once it is over."""
        if not report.passed:
            self.not_passed.add(report.nodeid)
        if report.when == "teardown" and report.nodeid not in self.not_passed and self.worker is None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Nothing left to run is no failure."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.before:
            session.exitstatus = pytest.ExitCode.OK
