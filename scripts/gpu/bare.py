"""A pytest plugin for dry runs: hides the packages that a machine with a GPU may lack, so that no test that runs there imports one."""

import sys

HIDDEN = {"duckdb", "fastapi", "matplotlib", "pandas", "platformdirs", "pyarrow", "pydantic", "rich", "sklearn", "typer", "yaml"}
"""Modules of the extras ``train``, ``serve`` and ``spark``."""


def pytest_load_initial_conftests() -> None:
    """Hide them once pytest has loaded its plugins, some of which need them."""
    for name in [*HIDDEN, *(name for name in sys.modules if name.partition(".")[0] in HIDDEN)]:
        sys.modules[name] = None  # type: ignore[assignment]  # as Python has it, an import of this is a ModuleNotFoundError
