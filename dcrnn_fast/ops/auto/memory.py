"""What ``auto`` chooses by, and what it chose, in this process and in the user's file.

The file is of one card, and counts with the same versions alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...kernels import tile_file
from ...support import files, strict_json
from ...support.accuracy import CEILING
from ..backends import EXTENSIONS, REASONS
from ..registry import CONTRACTS

logger = logging.getLogger("dcrnn_fast")

STATIC = "reference"
"""What is taken where nothing was measured: the one implementation that needs no check."""
INPUTS = {name: contract.INPUTS for name, contract in CONTRACTS.items()}
"""The differentiable inputs of each operator."""
SIZES = {name: contract.SIZES for name, contract in CONTRACTS.items()}
"""The sizes on which the time of each operator depends, but the batch size."""
FORMAT = "dcrnn_fast auto 3"
KERNELS, OPERATORS = Path(tile_file.__file__).parent, Path(__file__).parents[1]

_choices: dict[tuple[str, Key], Choice] = {}
_tries: Counter[tuple[str, Key]] = Counter()
_read: set[str] = set()


class Key(NamedTuple):
    """What a choice depends on.

    ``kind`` is the dtype as the products see it, ``needs`` names the :data:`INPUTS` that need a gradient (none in inference), ``sizes`` are
    in the order of :data:`SIZES`, ``batch`` is the batch size by :func:`bucket`, or 0 for an operator without a batch.
    """

    operator: str
    kind: str
    needs: tuple[str, ...]
    sizes: tuple[int, ...]
    batch: int

    def columns(self) -> dict[str, str]:
        """The fields as text, for people."""
        return {
            "operator": self.operator,
            "kind": self.kind,
            "gradients": "+".join(self.needs) or "none",
            "sizes": " ".join(f"{name}={size:d}" for name, size in zip(SIZES[self.operator], self.sizes, strict=True)),
            "batch": f"<={self.batch}" if self.batch else "-",
        }

    def __str__(self) -> str:
        shown = self.columns()
        batch = f" batch{shown['batch']}" if self.batch else ""
        return f"{shown['operator']}({shown['kind']}, {shown['sizes']}{batch}, gradients: {shown['gradients']})"


@dataclass(frozen=True)
class Choice:
    """The backend to take, its time over the reference's, and why others were refused. ``lasting``: it may be kept in a file."""

    backend: str
    ratio: float = 1.0
    refused: Mapping[str, str] = field(default_factory=dict)
    lasting: bool = True

    def __str__(self) -> str:
        refused = "; ".join(f"{name} refused: {why}" for name, why in self.refused.items())
        return f"{self.backend}, {self.ratio:.2f} of the reference's time{'; ' * bool(refused)}{refused}"


def bucket(rows: int) -> int:
    """``rows`` rounded up to a power of four, at least 16."""
    size = 16
    while size < rows:
        size *= 4
    return size


def clear() -> None:
    """Forget what this process knows, so that the next call reads the file again."""
    _choices.clear()
    _tries.clear()
    _read.clear()
    tiles_digest.cache_clear()


def recall(card: str, key: Key) -> Choice | None:
    """What is known of a size on a card. The first call reads the user's file."""
    found = _choices.get((card, key))
    return found if found is not None or card in _read else known(card).get(key)


def tried(card: str, key: Key) -> int:
    """Count a call of a size that showed nothing, and return how many there were."""
    _tries[card, key] += 1
    return _tries[card, key]


def known(card: str) -> dict[Key, Choice]:
    """What is known of a card, by this process or in the user's file, but for backends that cannot run here."""
    if card not in _read:
        try:
            found = load(user_file(card), card)
        except RuntimeError as error:  # the user has no home folder
            logger.warning("auto's choices have no place (%s); set XDG_CACHE_HOME", error)
            found = {}
        for key, choice in found.items():
            if REASONS.get(choice.backend, "unknown") is None:
                _choices.setdefault((card, key), choice)
        _read.add(card)  # last: another thread that found the card here before its choices would miss them
    return {key: choice for (name, key), choice in list(_choices.items()) if name == card}


def versions(card: str) -> dict[str, str]:
    """What a choice depends on beside its key: versions, the kernels as they are, which may be edited or built again in place, and the
    card's measured tile sizes, with which a kernel takes another time."""
    found = {"torch": str(torch.__version__)}
    for name in ("dcrnn_fast", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return {**found, "kernels": kernels_digest(), "tiles": tiles_digest(card)}


@cache
def kernels_digest() -> str:
    """A digest of the kernels' sources in Python and of the built extensions."""
    sources = [path for folder in (KERNELS, OPERATORS) for path in folder.glob("*.py")]
    built = [spec.origin for name in EXTENSIONS if (spec := find_spec(f"dcrnn_fast.{name}")) is not None and spec.origin]
    return digest([*sources, *map(Path, built)])


@cache
def tiles_digest(card: str) -> str:
    """A digest of the files of measured tile sizes of a card. Kept, as the tile sizes are: what another process writes later does not
    count here."""
    return digest(path for path in (tile_file.shipped_file(card), tile_file.user_file(card)) if path.is_file())


def digest(paths: Iterable[Path]) -> str:
    """A digest of files' names and contents."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        found.update(f"{path.name} {path.stat().st_size} ".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def user_file(card: str) -> Path:
    """Where this user's choices for a card are kept."""
    return tile_file.cache_folder() / f"auto-{tile_file.file_name(card)}.json"


def remember(card: str, choices: Mapping[Key, Choice]) -> None:
    """Keep choices in memory, and those that last in the user's file. What other processes wrote there stays."""
    _choices.update({(card, key): choice for key, choice in choices.items()})
    lasting = {key: choice for key, choice in choices.items() if choice.lasting}
    if not lasting:
        return
    try:
        path = user_file(card)

        def content() -> dict[str, Any]:
            merged = {**load(path, card), **lasting}
            rows = [row_of(key, merged[key]) for key in sorted(merged)]
            return {"format": FORMAT, "card": card, "versions": versions(card), "choices": rows}

        files.update_json(path, content)
    except (OSError, RuntimeError) as error:
        logger.warning("auto's choices cannot be kept in a file (%s); the next process measures again", error)


def load(path: Path, card: str) -> dict[Key, Choice]:
    """The choices in a file; none if there is no file, or it is damaged, of another card or of other versions."""
    try:
        content = strict_json.load(path)
        if content["format"] != FORMAT or content["card"] != card or content["versions"] != versions(card):
            return {}
        return dict(map(choice_of, content["choices"]))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is no file of auto's choices (%s: %s); they are measured again", path, type(error).__name__, error)
        return {}


def row_of(key: Key, choice: Choice) -> dict[str, Any]:
    """A choice as a file has it."""
    sizes = {name: int(size) for name, size in zip(SIZES[key.operator], key.sizes, strict=True)}
    of_key = {"operator": key.operator, "kind": key.kind, "needs": list(key.needs), "sizes": sizes, "batch": key.batch}
    return {**of_key, "backend": choice.backend, "ratio": round(choice.ratio, 4)}


def choice_of(row: dict[str, Any]) -> tuple[Key, Choice]:
    """The choice of a file's row. Raises KeyError, TypeError or ValueError if it is none."""
    operator, kind, needs, sizes = row["operator"], row["kind"], row["needs"], row["sizes"]
    if kind not in CEILING or needs != [name for name in INPUTS[operator] if name in needs]:
        raise ValueError(f"kind={kind!r}, needs={needs!r}: expected a dtype, and inputs of {operator} in their order")
    if not isinstance(sizes, dict) or tuple(sizes) != SIZES[operator]:
        raise ValueError(f"sizes={sizes!r}: expected values of {', '.join(SIZES[operator])}")
    for name, value in (*sizes.items(), ("batch", row["batch"])):
        if type(value) is not int or value < 0:
            raise TypeError(f"{name}={value!r}: expected an int of at least 0")
    if not isinstance(row["backend"], str):
        raise TypeError(f"backend={row['backend']!r}: expected a text")
    return Key(operator, kind, tuple(needs), tuple(sizes.values()), row["batch"]), Choice(row["backend"], float(row["ratio"]))


def summary() -> str:
    """One line for people: for how many sizes of which cards this user has choices. Queries no GPU."""
    cards = []
    for path in sorted(tile_file.cache_folder().glob("auto-*.json")):
        try:
            card = str(strict_json.load(path)["card"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        choices = load(path, card)
        taken = ", ".join(sorted({choice.backend for choice in choices.values()})) or "nothing"
        cards.append(f"{card}, {len(choices)} size{'s' * (len(choices) != 1)} measured with these versions, takes {taken}")
    return "; ".join(cards) or "nothing measured yet"
