"""Reads the files of measured schedules and tile sizes. Needs neither Triton nor a GPU, because `dcrnn-fast info` reads the files too.

Each file is of one card. :func:`choices` prefers the user's file to the one that the package ships. ``dcrnn_fast/ops/measure_tiles.py``
writes the user's.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dcrnn_fast.errors import ConfigError

from .tile_table import ITEMSIZE, KERNELS, SCHEDULES, Config, Sizes, candidates

ENVIRONMENT = "DCRNN_FAST_TUNING"
"""Environment variable that names the user's file."""

SHIPPED = Path(__file__).with_name("tuned")
FORMAT = "dcrnn_fast tuning 2"
_COLUMNS = {"kind": str, "rows": int, "dim": int, "columns": int, "gates": int, "steps": int, "tasks": int}
"""The fields of :class:`~dcrnn_fast.kernels.tile_table.Sizes` in a file."""


@dataclass(frozen=True)
class Entry:
    """The fastest tile of a kernel, or the faster schedule, and how long the operator took with it."""

    key: tuple[str, Sizes]
    value: Config | str
    microseconds: float

    def row(self) -> dict[str, Any]:
        """The entry as a file has it."""
        choice, sizes = self.key
        value = {"schedule": self.value} if isinstance(self.value, str) else {"config": asdict(self.value)}
        columns = {name: getattr(sizes, name) for name in _COLUMNS}
        return {"choice": choice, **columns, **value, "microseconds": round(self.microseconds, 3)}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Entry:
        """The entry of a file's row. Raises KeyError, TypeError or ValueError if it is none."""
        for name, expected in _COLUMNS.items():
            if type(row[name]) is not expected:
                raise TypeError(f"{name}={row[name]!r}: expected {expected.__name__}")
        value = str(row["schedule"]) if row["choice"] == "schedule" else Config(**row["config"])
        return cls(Sizes(**{name: row[name] for name in _COLUMNS}).key(row["choice"]), value, float(row["microseconds"]))

    def is_candidate(self) -> bool:
        """Whether this version still has the schedule or the tile."""
        choice, sizes = self.key
        if isinstance(self.value, str):
            return self.value in SCHEDULES
        return choice in KERNELS and sizes.kind in ITEMSIZE and self.value in candidates(choice, sizes.kind, sizes.gates)


def file_name(card: str) -> str:
    """A card's name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", card).strip("-")


def cache_folder() -> Path:
    """Where this user's measurements are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcrnn_fast"


def user_file(card: str) -> Path:
    """Where this user's measurements of a card are, or will be."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given).expanduser() if given else cache_folder() / f"tuning-{file_name(card)}.json"


def shipped_file(card: str) -> Path:
    """Where the package has the measurements of a card, if it has them."""
    return SHIPPED / f"{file_name(card)}.json"


@cache
def choices(card: str) -> dict[tuple[str, Sizes], Config | str]:
    """All measured choices of a card, by :meth:`Sizes.key`; none for "", which is no card. Reads the files once."""
    found: dict[tuple[str, Sizes], Config | str] = {}
    for path in (shipped_file(card), user_file(card)) if card else ():
        found |= {entry.key: entry.value for entry in load(path, card)}
    return found


def load(path: Path, card: str) -> list[Entry]:
    """The entries of a file; none if there is no file. Leaves out entries whose tile the table no longer has.

    Raises ConfigError: the file cannot be read, is damaged, or is of another card.
    """
    of_card, entries = read(path)
    if of_card is not None and file_name(of_card) != file_name(card):
        raise ConfigError(f"{path}: was measured on {of_card}, and this is {card}; name another file in {ENVIRONMENT}, or unset it")
    return entries


def read(path: Path) -> tuple[str | None, list[Entry]]:
    """The card of a file and its entries; None and no entries if there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f'expected "format": "{FORMAT}"')
        entries = [Entry.of(row) for row in content["entries"]]
        return str(content["card"]), [entry for entry in entries if entry.is_candidate()]
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: is no file of measured tile sizes ({type(error).__name__}: {error}); delete it and measure again with "
            f"`dcrnn-fast info --warm`, or name another file in {ENVIRONMENT}"
        ) from error


def summary() -> str:
    """One line for people: the cards with measured tile sizes here. Queries no GPU."""
    given = os.environ.get(ENVIRONMENT)
    users = [Path(given).expanduser()] if given else sorted(cache_folder().glob("tuning-*.json"))
    found = []
    for path in [*users, *sorted(SHIPPED.glob("*.json"))]:
        card, entries = read(path)
        if card is not None:
            found.append(f"{card}, {len(entries)} choice{'s' * (len(entries) != 1)} ({path})")
    return "measured: " + "; ".join(found) if found else "none measured: tile sizes are predicted"
