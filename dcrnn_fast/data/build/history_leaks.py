"""Collects the histories of a schema from a staged table, and refuses one that shows a model labels of rows on which it is tested."""

from __future__ import annotations

from pathlib import Path

import duckdb

from ...errors import DataError
from ..packed.arrays import Progress
from ..schema.fields import History
from ..schema.table import TableSchema
from .histories import HistoryIds, Sources
from .labels import Label
from .splits import SplitArray
from .staging import StagedTable, TextMap


def collected(
    history: History,
    items: TextMap,
    users: TextMap,
    *,
    schema: TableSchema,
    staged: StagedTable,
    splits: SplitArray,
    database: duckdb.DuckDBPyConnection,
    folder: Path,
    progress: Progress,
    teaches: bool,
) -> HistoryIds:
    """One of the schema's histories, of the ids `items` and the numbers `users` of a staged table's rows; files go to `folder`.

    `teaches` says that a model may be trained on the train rows. Where the data is encoded as other data was, the training may have
    happened there, so nothing is refused here. Otherwise raises DataError for a history without any event, and for one that shows labels
    of validation and test rows to train rows.
    """
    rule, number = schema.event_rule(history), schema.histories.index(history)
    progress("collecting histories", number, len(schema.histories))
    sources = Sources(items, users, None if rule is None else Label(staged, rule), splits)
    found = HistoryIds.collect(history, staged, sources, database, folder / f"history-{number}")
    if teaches and not found.events:
        wanted = [repr(history.of), repr(history.by), *(["an event by its `where`"] if rule is not None else [])]
        raise DataError(
            f"data set {schema.name!r}: history {history.name!r} is empty: no row has {' and '.join(wanted)}; correct it, or leave it out"
        )
    if teaches and found.behind_held_out and schema.shows_labels(history):
        by = repr(history.by)
        raise DataError(
            f"data set {schema.name!r}: history {history.name!r} shows labels of validation and test rows to a model that learns: "
            f"its `where` reads a label, and {found.behind_held_out:,} train rows come after a positive row of another split with the same "
            f"{by}. Cut the rows by time (`split: {{time: {history.time}, valid: 0.1, test: 0.2}}`), or keep those of a {by} together "
            f"(`split: {{hash: {history.by}, valid: 0.1, test: 0.2}}`), or leave out `where`. Without a `valid` part or file, validation "
            "rows are drawn among the train rows"
        )
    return found
