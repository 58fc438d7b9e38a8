"""A pytest plugin for dry runs: hides the packages that a machine with a GPU may lack, so that no test that runs there imports one."""

from __future__ import annotations

import sys
from typing import Any

import pytest

HIDDEN = {"duckdb", "fastapi", "matplotlib", "pandas", "platformdirs", "pyarrow", "pydantic", "rich", "sklearn", "typer", "yaml"}
"""Modules of the extras ``train``, ``serve`` and ``spark``."""


class Hider:
    """Stands before Python's own finders."""

    def find_spec(self, name: str, *others: Any) -> None:
        """Raise ModuleNotFoundError for a hidden module."""
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Hide them once pytest has loaded its plugins, some of which need them."""
    sys.meta_path.insert(0, Hider())
    for name in [name for name in sys.modules if name.partition(".")[0] in HIDDEN]:
        del sys.modules[name]
