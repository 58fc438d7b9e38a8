"""The style of the figures. It holds while a figure is drawn, and leaves the process's own as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

STYLE = {"svg.hashsalt": "dcrnn_fast", "svg.fonttype": "none", "font.size": 9}
NO_FRAME = {"axes.spines.top": False, "axes.spines.right": False}


def drawn_with(**more: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the function draws SVG files with ``STYLE`` and these settings of matplotlib."""

    def decorate(draw: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(draw)
        def styled(*arguments: Any, **options: Any) -> None:
            import matplotlib

            matplotlib.use("svg")
            with matplotlib.rc_context(STYLE | more):
                draw(*arguments, **options)

        return styled

    return decorate
