"""The command of a benchmark that takes ``--seconds`` and ``--dry``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from . import machine, results


def run(about: str | None, file: str, data: str, measure: Callable[[float], Mapping[str, Any]], *, seconds: float) -> None:
    """Measure each case for ``--seconds``, and write what ``measure`` gives to a file of bench/results/; with ``--dry``, write nothing."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help="how long each case is measured")
    parser.add_argument("--dry", action="store_true", help="print the figures and write no file")
    given = parser.parse_args()
    found = measure(given.seconds)
    if not given.dry:
        path = results.COMMITTED / file
        results.write(path, {"machine": machine.description(), "data": data, **found})
        print(f"written to {path}")


def told(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed."""
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row
