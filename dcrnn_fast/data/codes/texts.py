"""The ids of texts in a categorical or hashed field, looked up in memory. Needs the standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from ..packed.meta import MISSING, OOV

TRUTHS = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")
"""How a column's truth values are spelled: as truth values, by pandas, by spreadsheets, and as numbers."""


def truth_ids(vocabulary: Sequence[str]) -> dict[str, int]:
    """The ids of the other spellings of a vocabulary that holds nothing but truth values; of any other vocabulary, none.

    Where the vocabulary itself has several spellings of a truth, the others have the id of the first one in :data:`TRUTHS`.

    >>> truth_ids(["<oov>", "false", "true"])
    {'True': 2, 'TRUE': 2, '1': 2, 'False': 1, 'FALSE': 1, '0': 1}
    >>> truth_ids(["<oov>", "0", "1", "2"])
    {}
    """
    texts = {text for spellings in TRUTHS for text in spellings}
    if len(vocabulary) > len(texts) + 2 or not (known := set(vocabulary) - {OOV, MISSING}) <= texts:
        return {}
    firsts = [(spellings, text) for spellings in TRUTHS for text in reversed(spellings) if text in known]  # the last one counts
    return {text: vocabulary.index(first) for spellings, first in firsts for text in spellings if text not in known}


def constant_ids(
    fields: Mapping[str, int], vocabulary: Mapping[str, Sequence[Any]], derived: Mapping[str, Mapping[str, Any]]
) -> dict[str, int]:
    """By field that scoring reads as a constant, its id; 0 of a constant that the vocabulary does not hold."""
    constants = {name: definition["constant"] for name, definition in derived.items() if name in fields and "constant" in definition}
    lookups = {name: text_ids(list(vocabulary[name]), fields[name]) for name in constants}
    return {name: lookup.ids([constants[name]])[0] for name, lookup in lookups.items() if lookup is not None}


class Categories:
    """The ids of a field with a vocabulary: a text's position there, 0 for any other text; with `several`, 0 for a missing one too."""

    def __init__(self, vocabulary: Sequence[str], *, several: bool = False) -> None:
        self._ids = {text: id_ for id_, text in reversed(list(enumerate(vocabulary)))} | truth_ids(vocabulary)
        if several:
            self._ids.pop(MISSING, None)

    def ids(self, texts: Sequence[str]) -> list[int]:
        """The ids of texts as a vocabulary spells them."""
        return list(map(self._ids.get, texts, repeat(0)))


class Hashes:
    """The ids of a hashed field, as DuckDB computes them for `prepare`: 0 where missing, and else 1 + the text's bucket."""

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets

    def ids(self, texts: Sequence[str]) -> list[int]:
        """The ids of texts as a vocabulary spells them."""
        digests = (hashlib.md5(text.encode(), usedforsecurity=False).digest() for text in texts)
        numbers = (1 + int.from_bytes(digest[8:], "little") % self._buckets for digest in digests)
        return [0 if text == MISSING else number for text, number in zip(texts, numbers, strict=True)]


def text_ids(entries: Sequence[Any], size: int, *, several: bool = False) -> Categories | Hashes | None:
    """The ids of a field of `size` ids with these entries in meta.json's vocabulary; None for a bucketed field.

    `several` says that the texts are one of a field's several values, where a missing one has id 0.
    """
    if entries and entries[0] == OOV:
        return Categories(entries, several=several)
    # A bucketed column without a value in the train rows has no edge either, and two ids.
    return Hashes(size - 1) if not entries and size > 2 else None
