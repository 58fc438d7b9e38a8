"""A pytest plugin, and a function, that make backends unavailable in this process: those whose smoke test failed."""

from __future__ import annotations

import os

LEFT_OUT = "DCRNN_FAST_LEFT_OUT"
"""The variable of the environment that names them, with commas between."""


def pytest_configure() -> None:
    """Give each of them a reason why it cannot run."""
    from dcrnn_fast.ops import backends

    for name in filter(None, os.environ.get(LEFT_OUT, "").split(",")):
        backends.REASONS[name] = "its smoke test failed"
