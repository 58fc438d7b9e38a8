"""The cells of a field from which a model learns nothing, out of vocabulary or missing, and the OOV dropout that prepares for them.

The packed format tells them apart where it can. In a categorical field id 0 is out of vocabulary. A missing cell has an id of its own if
train has at least `min_count` of them, and is out of vocabulary otherwise. In a bucketed field id 0 is missing, and no value is out of
vocabulary. Of a field with several values the first one counts; where it is a category, a row without values is out of vocabulary. Needs
NumPy only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...support.fields import table_rows
from ..packed.arrays import PackedDataset, PackedSplit
from ..packed.meta import MISSING, OOV, PackedMeta

Shares = Mapping[str, Mapping[str, float | None]]
"""By field: the shares "oov" and "missing" of a split's rows, as `id_shares` returns them."""

NEARLY_ALL = 0.95
DROP = 5.0
"""A field is lost in a split if nearly all of its cells are unreadable there, and at most a fifth as many are readable as in train. A file
that spells its ids in another way loses all of them. In a log split by time most users may be new, and that is not a mistake: in
MovieLens-100K they are on 90% of the test rows."""
MIN_ROWS = 20
RISE = 0.25
"""A share has risen if it is by so much above those of the train and validation rows, and twice as high."""
RARE = 0.5
BLOCK_ROWS = 65_536
ASKED_ROWS = 1_000_000
"""Train rows, spread evenly over all, whose labels say how much ids tell."""
_KINDS = {
    "oov": (
        "that are not missing are out of vocabulary",
        "compare its texts with those of the train rows, as 7 and 007, or Oslo and oslo, are two categories; if the categories are really "
        "new, train on newer rows, use coarser categories, or leave the field out",
    ),
    "missing": ("are missing", "check that the file fills the column, and how it writes missing values"),
}
MOST = 0.95
"""The largest part of a field's cells that training is let read as unseen."""
LEAST, LITTLE = 10.0, 0.1
"""The least strength of a field whose ids tell little of the labels, and of one whose ids tell all: see docs/evidence/defaults.md."""
Counts = npt.NDArray[np.int64]
IdCounts = tuple[list[Counts], list[Counts]]
"""What :func:`id_counts` returns."""


def id_shares(split: PackedSplit, meta: PackedMeta) -> dict[str, dict[str, float | None]]:
    """By field, the shares in [0, 1] of the split's rows that are out of vocabulary ("oov") and missing ("missing").

    A share is None where the format cannot tell: "oov" of a bucketed field, "missing" of a categorical field whose vocabulary has no
    missing category, and both if the split has no rows. Reads blocks of rows, so it needs no memory for the whole split.

    >>> meta = PackedMeta(
    ...     "shop", ("click",), False, "independent", {"city": 3, "price": 4}, (), None, False, {"train": 4},
    ...     {"city": ["<oov>", "a", "<missing>"], "price": [1.0, 2.0]}, {}, {}, 1,
    ... )
    >>> ids = np.array([[0, 0], [2, 1], [1, 3], [0, 2]], dtype=np.int32)
    >>> id_shares(PackedSplit("train", ids, None, np.zeros((4, 1), np.float32), None, None), meta)
    {'city': {'oov': 0.5, 'missing': 0.25}, 'price': {'oov': None, 'missing': 0.25}}
    """
    first = meta.first_columns
    judged = set(first.values())
    columns = [position for position, column in enumerate(meta.fields) if column in judged] if meta.pooled else slice(None)
    categorical = [is_categorical(meta, field) for field in first]
    missing_ids = [missing_id(meta, field) for field in first]
    zero, missing = (np.zeros(len(first), dtype=np.int64) for _ in range(2))
    wanted = np.array([-1 if number is None else number for number in missing_ids], dtype=np.int32)
    for start in range(0, len(split), BLOCK_ROWS):
        block = np.asarray(split.ids[start : start + BLOCK_ROWS])[:, columns]
        zero += np.count_nonzero(block == 0, axis=0)
        missing += np.count_nonzero(block == wanted, axis=0)

    def share(count: int, known: bool) -> float | None:
        return int(count) / len(split) if known and len(split) else None

    return {
        field: {"oov": share(zero[f], categorical[f]), "missing": share(missing[f], missing_ids[f] is not None)}
        for f, field in enumerate(first)
    }


def is_categorical(meta: PackedMeta, field: str) -> bool:
    """Whether the field's ids have a vocabulary of categories; otherwise they are hashes, or buckets of numbers."""
    return meta.vocabulary.get(meta.first_columns.get(field, field), [])[:1] == [OOV]


def lost_fields(train: Shares, other: Shares, split: str, rows: int) -> list[str]:
    """A warning of one line for every field that is nearly all out of vocabulary, or missing, in a split and not in train.

    `train` and `other` are the :data:`Shares` of the train rows and of the `rows` rows of `split`. Missing cells do not count as in
    vocabulary or out of it. Fewer than 20 cells give no warning.

    >>> print(*lost_fields({"city": {"oov": 0.1}}, {"city": {"oov": 0.97}}, "test", 500))  # doctest: +ELLIPSIS
    field 'city': 97.0% of the test cells are out of vocabulary or missing, but 10.0% of the train cells: ...
    """
    return [
        f"field {field!r}: {now:.1%} of the {split} cells {words}, but {before:.1%} of the train cells: there the field tells the model "
        f"nothing; {_KINDS[kind][1]}"
        for field, kind, before, now, part, words in _compared(train, other)
        if part * rows >= MIN_ROWS and now >= NEARLY_ALL > before and 1 - before >= DROP * (1 - now)
    ]


def risen_fields(train: Shares, valid: Shares, other: Shares, split: str) -> list[str]:
    """A warning of one line for every field of whose cells far more are out of vocabulary, or missing, than in train and validation.

    A field whose share in the validation rows is not known gives none: in a log split by time, many users may be new there.

    >>> print(*risen_fields({"city": {"oov": 0.1}}, {"city": {"oov": 0.3}}, {"city": {"oov": 0.6}}, "test"))  # doctest: +ELLIPSIS
    field 'city': 60.0% of the test cells are out of vocabulary or missing, but 10.0% of the train and 30.0% of the validation cells; ...
    """
    return [
        f"field {field!r}: {now:.1%} of the {split} cells {words}, but {before:.1%} of the train and {there:.1%} of the validation cells; "
        f"{_KINDS[kind][1]}"
        for field, kind, before, now, _, words in _compared(train, other)
        if (there := _unreadable(valid.get(field, {}), kind)[0]) is not None
        and now >= max(max(before, there) + RISE, 2 * max(before, there))
    ]


def _compared(train: Shares, other: Shares) -> Iterator[tuple[str, str, float, float, float, str]]:
    """By field and kind: the share in train, that in another split, the part of its rows that it is a share of, and what the cells are."""
    for field, shares in other.items():
        for kind, (words, _) in _KINDS.items():
            (before, _), (now, part) = _unreadable(train.get(field, {}), kind), _unreadable(shares, kind)
            if before is not None and now is not None:
                in_words = "are out of vocabulary or missing" if kind == "oov" and shares.get("missing") is None else words
                yield field, kind, before, now, part, in_words


def rare_fields(train: Shares, several: Collection[str] = ()) -> list[str]:
    """A warning of one line for every field of whose train rows at least half are out of vocabulary.

    Fields in `several` have several values.
    """
    return [
        f"field {field!r}: {share:.1%} of the train rows have no value, or their first one is rarer than min_count and tells the model "
        "nothing; check that the files fill the column, lower min_count, or use coarser categories"
        if field in several
        else f"field {field!r}: {share:.1%} of the train rows are out of vocabulary, their categories being rarer than min_count: the "
        "model reads all of them as one category; lower min_count, use coarser categories, or leave the field out"
        for field, shares in train.items()
        if (share := shares.get("oov")) is not None and share >= RARE
    ]


def missing_id(meta: PackedMeta, field: str) -> int | None:
    """The id of a missing cell, or None where it has none of its own."""
    if not is_categorical(meta, field):
        return 0
    vocabulary: list[str | float] = list(meta.vocabulary[meta.first_columns[field]])
    return vocabulary.index(MISSING) if MISSING in vocabulary and field not in meta.pooled else None


def _unreadable(shares: Mapping[str, float | None], kind: str) -> tuple[float | None, float]:
    """The share of a `kind`, and the part of the rows that it is a share of: for "oov", the rows with a value."""
    share, part = shares.get(kind), 1.0
    if kind == "oov" and share is not None:
        # A column that is spelled in another way may have missing cells too: they must not hide the others.
        part = 1 - (shares.get("missing") or 0.0)
        share = share / part if part > 0 else None
    return share, part


def categorical_columns(meta: PackedMeta) -> dict[str, list[int]]:
    """The fields whose ids are categories, with the positions of their columns."""
    position = {column: place for place, column in enumerate(meta.fields)}
    columns = {field: meta.pooled[field]["columns"] if field in meta.pooled else [first] for field, first in meta.first_columns.items()}
    return {field: [position[column] for column in own] for field, own in columns.items() if is_categorical(meta, field)}


def id_counts(train: PackedSplit, meta: PackedMeta, before: Counts | None = None) -> IdCounts:
    """By column, how often the train rows hold each id in it, and in all columns that share its embeddings.

    The latter count the reads ``before`` too, [rows of the table].
    """
    sizes = list(meta.fields.values())
    own = [np.bincount(train.ids[:, column], minlength=size)[:size] for column, size in enumerate(sizes)]
    rows, starts = table_rows(list(meta.fields), sizes, meta.shared)
    together = np.zeros(rows, dtype=np.int64) if before is None else before.copy()
    for start, counts in zip(starts, own, strict=True):
        together[start : start + len(counts)] += counts
    return own, [together[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def table_reads(train: PackedSplit, meta: PackedMeta) -> Counts:
    """How often the train rows hold each id, [rows of the table]."""
    together = zip(meta.fields, id_counts(train, meta)[1], strict=True)
    return np.concatenate([counts for field, counts in together if field not in meta.shared])


def oov_strengths(data: PackedDataset, counts: IdCounts) -> dict[str, float]:
    """By categorical field, the strength with which OOV dropout reads as many train cells as unseen as the validation rows hold.

    OOV dropout reads an id that the train rows hold ``n`` times as unseen with probability ``strength / (strength + n)``. The strength is
    at least :func:`least_strength` of a million train rows, and at most such that 95% of the cells are read as unseen. ``counts`` is what
    :func:`id_counts` says of the train rows.
    """
    train, found = data.split("train"), {}
    asked = slice(None, None, -(-len(train) // ASKED_ROWS) or 1)
    ids, labels = np.asarray(train.ids[asked]), np.asarray(train.labels[asked])
    for field, columns in categorical_columns(data.meta).items():
        unseen = 0 if field in data.meta.pooled else int(counts[0][columns[0]][0])
        own, alike = (np.concatenate([of_columns[column][1:] for column in columns]) for of_columns in counts)
        least = least_strength(ids[:, columns], labels)
        found[field] = solve(own, alike, unseen, unseen_part(data.split("valid"), columns), least)
    return found


def least_strength(ids: npt.NDArray[np.int32], labels: npt.NDArray[np.float32]) -> float:
    """Twice as many rows of one id as tell as much of its label as all other rows do, from :data:`LITTLE` to :data:`LEAST`.

    Where the rates of ids have a beta distribution, the best guess at the rate of one is that of its ``n`` rows with weight ``n / (n + s)``
    and that of all rows with weight ``s / (n + s)``. s is ``(1 - r) / r``, where r is the correlation of two rows of an id, here by the
    analysis of variance (Ridout, Demétrio and Firth, Biometrics 55, 1999). Twice, because other fields tell a part of what ids tell.

    Args:
        ids: a field's cells in the train rows, [rows, columns]; 0 is out of vocabulary.
        labels: of the same rows, [rows, tasks], 0 and 1, NaN where unknown. The task counts of which the ids tell least.

    >>> ids = np.repeat(np.arange(1, 101, dtype=np.int32), 10)[:, None]  # each of 100 ids in ten rows
    >>> alike, mixed = (ids % 2).astype(np.float32), (np.arange(1000) % 2).astype(np.float32)[:, None]
    >>> least_strength(ids, alike), least_strength(ids, mixed)
    (0.1, 10.0)
    """
    found = LITTLE
    for label in labels.T:
        known = ~np.isnan(label)
        cells, weights = ids[known].ravel(), np.repeat(label[known], ids.shape[1])
        rows, positive = np.bincount(cells, minlength=1)[1:].astype(np.float64), np.bincount(cells, weights, minlength=1)[1:]
        rows, positive = rows[rows > 0], positive[rows > 0]
        total, freedom = rows.sum(), len(rows) - 1
        if freedom < 1 or total <= len(rows):
            return LEAST
        rates = positive / rows
        between = float((rows * (rates - positive.sum() / total) ** 2).sum() / freedom)
        within = float((positive * (1 - rates)).sum() / (total - len(rows)))
        if between <= within:
            return LEAST
        size = float((total - (rows**2).sum() / total) / freedom)
        found = max(found, 2 * size * within / (between - within))
    return min(found, LEAST)


def dropped(strength: float, counts: Counts) -> npt.NDArray[np.float64]:
    """The probability with which an id that occurs so often is read as unseen."""
    return strength / np.maximum(strength + counts, 1e-30)


def solve(own: Counts, alike: Counts, unseen: int, wanted: float, least: float) -> float:
    """The least strength of at least ``least`` with which training reads the part ``wanted`` of a field's cells as unseen.

    ``own`` has how often the field holds each id, ``alike`` how often all fields that share its embeddings do, and ``unseen`` how many of
    its cells are out of vocabulary anyway.
    """
    wanted = min(wanted, MOST) * (int(own.sum()) + unseen)
    low = high = least
    if not own.sum():
        return low

    def read(strength: float) -> float:
        return unseen + float((own * dropped(strength, alike)).sum())

    while read(high) < wanted and high < 1e9:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if read(middle) < wanted else (low, middle)
    return high


def unseen_part(split: PackedSplit, columns: Sequence[int]) -> float:
    """The part of a field's cells in a split that is out of vocabulary.

    A field with several values holds no value and an unseen one as id 0 alike. There the cells before a row's last known value count: none
    of them is empty.
    """
    unseen = cells = 0
    for start in range(0, len(split), BLOCK_ROWS):
        block = np.asarray(split.ids[start : start + BLOCK_ROWS])[:, columns]
        if len(columns) == 1:
            counted = np.ones(block.shape, dtype=bool)
        else:
            known_later = np.logical_or.accumulate(block[:, :0:-1] != 0, axis=1)[:, ::-1]
            block, counted = block[:, :-1], known_later
        unseen += int(np.count_nonzero((block == 0) & counted))
        cells += int(np.count_nonzero(counted))
    return unseen / cells if cells else 0.0
