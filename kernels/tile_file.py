"""Measured choices and the files that keep them. Needs neither Triton nor a GPU, so that ``python -m dcrnn_fast info`` can read them.

A file is of one card. :func:`choices` looks first into the user's file, then into the one that is shipped for the card.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dcrnn_fast.errors import ConfigError

from . import tile_table
from .tile_table import Config

ENVIRONMENT = "DCRNN_FAST_TUNING"
"""Environment variable that names the user's file."""

SHIPPED = Path(__file__).with_name("tuned")
FORMAT = "dcrnn_fast tuning 1"
SCHEDULES = ("step", "all_steps")
NO_LIMIT = 1 << 40


@dataclass(frozen=True)
class Key:
    """What a measured choice is for: a kernel or "schedule", D units, K columns, G vectors a unit, the dtype as the products see it, the
    bucket of rows, and for the schedule the steps (0 for a kernel)."""

    choice: str
    kind: str
    rows: int
    dim: int
    columns: int
    gates: int
    steps: int = 0

    @classmethod
    def of(cls, choice: str, sizes: Any) -> Key:
        """The key of a call's sizes (:class:`~dcrnn_fast.kernels.tile_choice.Sizes`)."""
        steps = sizes.steps if choice == "schedule" else 0
        return cls(choice, sizes.kind, tile_table.bucket(sizes.rows), sizes.dim, sizes.columns, sizes.gates, steps)


@dataclass(frozen=True)
class Entry:
    """The fastest tile of a kernel, or the faster schedule, and how long the operator took with it."""

    key: Key
    value: Config | str
    microseconds: float


def file_name(card: str) -> str:
    """A card's name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", card).strip("-")


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcrnn_fast"


def user_file(card: str) -> Path:
    """Where this user's measurements of a card are, or will be."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given).expanduser() if given else _cache_folder() / f"tuning-{file_name(card)}.json"


def shipped_file(card: str) -> Path:
    """Where the package has the measurements of a card, if it has them."""
    return SHIPPED / f"{file_name(card)}.json"


def present_files() -> list[Path]:
    """The files that are there, of whatever card."""
    given = os.environ.get(ENVIRONMENT)
    users = [Path(given).expanduser()] if given else sorted(_cache_folder().glob("tuning-*.json"))
    return [path for path in [*users, *sorted(SHIPPED.glob("*.json"))] if path.is_file()]


@cache
def choices(card: str) -> dict[Key, Config | str]:
    """Everything measured for a card, the user's own before the shipped. Read once a process, or again after ``choices.cache_clear()``."""
    found: dict[Key, Config | str] = {}
    for path in (shipped_file(card), user_file(card)):
        found |= {entry.key: entry.value for entry in load(path, card)}
    return found


def load(path: Path, card: str | None = None) -> list[Entry]:
    """The entries of a file, none where there is no file. Entries whose tile is not a candidate any more are left out.

    Raises ConfigError: the file cannot be read, is damaged, or is of another card than ``card``.
    """
    of_card, entries = read(path)
    if card is not None and of_card is not None and file_name(of_card) != file_name(card):
        raise ConfigError(f"{path}: was measured on {of_card}, and this is {card}; name another file in {ENVIRONMENT}, or unset it")
    return entries


def read(path: Path) -> tuple[str | None, list[Entry]]:
    """The card of a file, None where there is no file, and its entries."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f'expected "format": "{FORMAT}"')
        entries = [_entry(row) for row in content["entries"]]
        return str(content["card"]), [entry for entry in entries if _is_candidate(entry)]
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: is no file of measured tile sizes ({type(error).__name__}: {error}); delete it and measure again with "
            f"`dcrnn-fast info --warm`, or name another file in {ENVIRONMENT}"
        ) from error


def _entry(row: dict[str, Any]) -> Entry:
    key = Key(**{name: row[name] for name in Key.__dataclass_fields__})
    for name in ("rows", "dim", "columns", "gates", "steps"):
        if type(row[name]) is not int:
            raise TypeError(f"{name}={row[name]!r}: expected an int")
    value = str(row["schedule"]) if key.choice == "schedule" else Config(**row["config"])
    return Entry(key, value, float(row["microseconds"]))


def _is_candidate(entry: Entry) -> bool:
    if isinstance(entry.value, str):
        return entry.value in SCHEDULES
    known = entry.key.choice in tile_table.KERNELS and entry.key.kind in tile_table.ITEMSIZE
    return known and entry.value in tile_table.candidates(entry.key.choice, entry.key.kind, entry.key.gates, NO_LIMIT)


def save(card: str, entries: Iterable[Entry], path: Path | None = None) -> Path:
    """Add entries to a file, by default the user's; those of the same keys are replaced. Written beside and renamed.

    Raises ConfigError: what is there is no such file or of another card, or nothing can be written there.
    """
    path = path or user_file(card)
    merged = {entry.key: entry for entry in [*load(path, card), *entries]}
    ordered = sorted(merged.values(), key=lambda entry: tuple(asdict(entry.key).values()))
    content = {"format": FORMAT, "card": card, "entries": [_row(entry) for entry in ordered]}
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise ConfigError(f"{path}: measured tile sizes cannot be written ({error}); name another file in {ENVIRONMENT}") from error
    return path


def _row(entry: Entry) -> dict[str, Any]:
    value = {"schedule": entry.value} if isinstance(entry.value, str) else {"config": asdict(entry.value)}
    return {**asdict(entry.key), **value, "microseconds": round(entry.microseconds, 3)}


def summary() -> str:
    """One line for people: which cards have measured tile sizes here. Queries no GPU."""
    found = []
    for path in present_files():
        card, entries = read(path)
        found.append(f"{card}, {len(entries)} choice{'s' * (len(entries) != 1)} ({path})")
    return "measured: " + "; ".join(found) if found else "none measured: tile sizes are predicted"
