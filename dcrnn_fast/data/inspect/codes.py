"""Which columns of whole numbers hold codes, such as of a city or a flight? The labels tell: those of a code jump from value to value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from .sample import SAMPLE_ROWS, Column, is_positive

PARTS, BUCKETS, SPREAD = 5, 32, 0.5
"""Parts of the rows, each judged by what the others teach; buckets of a number; the standard deviation, in logits, of a code's rates."""
LEAST, CERTAIN = 0.005, 4.0
"""A code lowers the log loss by this share of the constant's at least, and by so many standard errors."""


def find_codes(
    database: duckdb.DuckDBPyConnection,
    source: str,
    columns: Sequence[Column],
    labels: Sequence[Column],
    times: Sequence[Column],
    groups: Sequence[Column],
) -> set[str]:
    """The names of the columns whose single values predict a label of the first rows better than buckets of them do.

    The rows are judged in parts that resemble how the draft splits them: periods by the first of ``times``, else groups by the first of
    ``groups``, such as users.
    """
    if not columns:
        return set()
    part = "row_number() OVER ()"
    if times:
        part = f"ntile({PARTS}) OVER (ORDER BY {times[0].in_sql})"
    elif groups:
        part = f"dense_rank() OVER (ORDER BY {groups[0].in_sql})"
    read = [f"{one.in_sql} AS c{number}" for number, one in enumerate(columns)]
    read += [f"({is_positive(one)})::TINYINT AS y{number}" for number, one in enumerate(labels)]
    rows = f"SELECT * FROM {source} LIMIT {SAMPLE_ROWS}"
    database.execute(f"CREATE TEMP TABLE judged AS SELECT {', '.join(read)}, ({part} % {PARTS})::TINYINT AS part FROM ({rows})")
    return {one.name for number, one in enumerate(columns) if any(_jumps(*counts) for counts in _counts(database, number, len(labels)))}


def _counts(database: duckdb.DuckDBPyConnection, column: int, labels: int) -> Iterator[tuple[npt.NDArray[np.float64], ...]]:
    """For each label the rows that say it and its positive rows, [values, parts], of the column's values in their order."""
    asked = ", ".join(f"count(y{label}), sum(y{label})" for label in range(labels))
    counts = f"SELECT c{column}, part, {asked} FROM judged WHERE c{column} IS NOT NULL GROUP BY ALL ORDER BY c{column}"
    value, part, *found = database.execute(counts).fetchnumpy().values()
    places = np.concatenate([[0], (value[1:] != value[:-1]).cumsum()]) * PARTS + part if len(value) else part
    for rows, positive in zip(found[::2], found[1::2], strict=True):
        tables = (np.bincount(places, np.ma.filled(one, 0), PARTS).astype(np.float64) for one in (rows, positive))
        yield tuple(np.pad(one, (0, -len(one) % PARTS)).reshape(-1, PARTS) for one in tables)


def _jumps(rows: npt.NDArray[np.float64], positive: npt.NDArray[np.float64]) -> bool:
    """Whether the rate of each value predicts the rows of a part better than that of its bucket; both are those of the other parts."""
    count = rows.sum()
    if not 0 < positive.sum() < count:
        return False
    rate = positive.sum() / count
    each, prior = rows.sum(1), 1 / (SPREAD**2 * rate * (1 - rate))  # as many rows of the rate above it stand for what is not known
    bucket = np.minimum((each.cumsum() - each / 2) / count * BUCKETS, BUCKETS - 1).astype(np.int64)  # of the last, no row may have a label
    other_rows, other_positive = (one.sum(1, keepdims=True) - one for one in (rows, positive))

    def of_buckets(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sums = np.zeros((BUCKETS, PARTS))
        np.add.at(sums, bucket, values)
        return sums

    smooth = ((of_buckets(other_positive) + prior * rate) / (of_buckets(other_rows) + prior))[bucket]
    own = (other_positive + prior * smooth) / (other_rows + prior)
    gains = ((positive, np.log(own / smooth)), (rows - positive, np.log((1 - own) / (1 - smooth))))
    mean, square = (sum(float((weight * gain**power).sum()) for weight, gain in gains) / count for power in (1, 2))
    constant = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    return bool(mean >= LEAST * constant and mean >= CERTAIN * np.sqrt(max(square - mean**2, 0) / count))
