"""Figures as SVG: the same numbers give the same bytes, whatever style the process has set."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


def svg_bytes(size: tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    """The SVG of what ``draw`` draws into a matplotlib figure of a size in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "dcrnn_fast"
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()
