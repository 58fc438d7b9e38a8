"""Collects the histories of a schema from a staged table, and refuses one that shows a model labels of rows on which it is tested."""

from __future__ import annotations

from pathlib import Path

import duckdb

from ...errors import DataError
from ..schema.histories import History
from ..schema.table import TableSchema
from .histories import HistoryIds, Sources
from .labels import Label
from .splits import SplitArray
from .staging import Progress, StagedTable, TextMap


class Collecting:
    """Collects one history of a schema after the other; files go to `folder`.

    `teaches` says that a model may be trained on the train rows. Where the data is encoded as other data was, the training may have
    happened there, so nothing is refused here.
    """

    def __init__(
        self,
        schema: TableSchema,
        staged: StagedTable,
        splits: SplitArray,
        database: duckdb.DuckDBPyConnection,
        folder: Path,
        progress: Progress,
        *,
        teaches: bool,
    ) -> None:
        self._schema, self._staged, self._splits, self._database, self._folder = schema, staged, splits, database, folder
        self._progress, self._teaches, self._done = progress, teaches, 0

    def __call__(self, history: History, items: TextMap, users: TextMap) -> HistoryIds:
        """A history of the ids `items` and the numbers `users` of its rows.

        Raises DataError for one without any event, and for one that shows labels of validation and test rows to train rows.
        """
        schema, rule = self._schema, self._schema.event_rule(history)
        self._progress("collecting histories", self._done, len(schema.histories))
        sources = Sources(items, users, None if rule is None else Label(self._staged, rule), self._splits)
        found = HistoryIds.collect(history, self._staged, sources, self._database, self._folder / f"history-{self._done}")
        self._done += 1
        if self._teaches and not found.events:
            wanted = [repr(history.of), repr(history.by), *(["an event by its `where`"] if rule is not None else [])]
            raise DataError(
                f"data set {schema.name!r}: history {history.name!r} is empty: no row has {' and '.join(wanted)}; correct it, or leave it "
                "out"
            )
        if self._teaches and found.behind_held_out and schema.shows_labels(history):
            raise DataError(self._shows_labels(history, found.behind_held_out))
        return found

    def _shows_labels(self, history: History, rows: int) -> str:
        by = repr(history.by)
        return (
            f"data set {self._schema.name!r}: history {history.name!r} shows labels of validation and test rows to a model that learns: "
            f"its `where` reads a label, and {rows:,} train rows come after a positive row of another split with the same {by}. Cut the "
            f"rows by time (`split: {{time: {history.time}, valid: 0.1, test: 0.2}}`), or keep those of a {by} together (`split: "
            f"{{hash: {history.by}, valid: 0.1, test: 0.2}}`), or leave out `where`. Without a `valid` part or file, validation rows are "
            "drawn among the train rows"
        )
