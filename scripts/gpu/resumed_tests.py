"""A pytest plugin: leaves out the tests that passed in an earlier call, so that a call of ten minutes goes on where the last one ended.

It writes the name of each test that passed or was skipped to the file that ``--passed`` names, at once: the run may be ended at any time.
Files that matter most come first.
"""

from __future__ import annotations

from pathlib import Path

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
        self.before = set(self.path.read_text(encoding="utf-8").splitlines()) if self.path.is_file() else set()
        self.failed: set[str] = set()
        self.is_worker = hasattr(config, "workerinput")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what passed before, and put the rest in order."""
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self.before])
        places = {name: place for place, name in enumerate(FIRST)}
        items[:] = sorted(
            (item for item in items if item.nodeid not in self.before), key=lambda item: places.get(item.path.name, len(FIRST))
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that passed, once it is over."""
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "teardown" and report.nodeid not in self.failed and not self.is_worker:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Nothing left to run is no failure."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.before:
            session.exitstatus = pytest.ExitCode.OK
