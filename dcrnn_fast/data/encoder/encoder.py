"""Encodes tables in memory as `prepare` encodes the same rows of a file. Mappings of lists and arrays need NumPy and PyTorch only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError, one_line, shown
from ...support.fields import pooling_problem
from ...support.files import path_of
from ..codes.numbers import FloatArray, Place, bucket_ids, check_finite, dense_float32, standardised, treated
from ..codes.texts import Categories, Hashes, constant_ids, text_ids
from ..packed.meta import META, read_meta, whole_vocabulary
from .memory import Piece, derived_too, number_cells, pieces_of, text_cells
from .run_folder import ENCODER, read_run

if TYPE_CHECKING:
    import torch

    from ..schema.fields import Derived


Watch = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32], list[int], bool], None]
"""Takes encoded rows [B, F] and [B, Nd], the fields that hold several unknown texts, and whether the rows share cells, as one user's do."""


class Encoded(NamedTuple):
    """The inputs of a model for some rows: `ids` [B, F] int64, `dense` [B, Nd] float32 or None."""

    ids: torch.Tensor
    dense: torch.Tensor | None


class Encoder:
    """Makes a model's inputs of rows in memory, with the bits that `prepare` gives for the same rows. It learns nothing.

    `num_embeddings` maps each field, in order, to its number of ids. `dense` names the dense columns, in order, `tasks` the tasks, `shared`
    maps fields to those whose ids they have, `pooled` those with several values to their columns. `constants` holds the id of each field
    that is known in training alone, which all rows have. `columns` are the columns that a table
    must hold; a file holds the `text_columns` among them as text, and cells of the `list_columns` have several values. `watch`, if it is
    set, gets all rows that are encoded. A model is built from the encoder:
    `DCRNN(encoder.num_embeddings, num_dense=len(encoder.dense), tasks=encoder.tasks, shared_embeddings=encoder.shared,
    pooled=encoder.pooled)`. `vocabulary`, `scaling`, `shared`, `derived` and `pooled` are those of :class:`PackedMeta`. Take an encoder
    from :meth:`load`.

    >>> encoder = Encoder(
    ...     tasks=["click"], num_embeddings={"city": 3, "price": 4}, dense=["price"],
    ...     vocabulary={"city": ["<oov>", "Oslo", "Rome"], "price": [10.0, 20.0]},
    ...     scaling={"price": {"treatment": "standardise", "mean": 10.0, "std": 5.0}},
    ... )
    >>> ids, dense = encoder.encode({"city": ["Rome", "Paris"], "price": [15, None]})
    >>> ids.tolist(), dense.tolist()
    ([[2, 2], [0, 0]], [[1.0], [0.0]])

    Raises DataError where fields, vocabulary and scaling do not fit each other.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        num_embeddings: Mapping[str, int],
        dense: Sequence[str],
        vocabulary: Mapping[str, Sequence[Any]],
        scaling: Mapping[str, Mapping[str, Any]],
        shared: Mapping[str, str] | None = None,
        derived: Mapping[str, Mapping[str, Any]] | None = None,
        pooled: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        fields = dict(num_embeddings)
        self.tasks, self.shared = tuple(tasks), dict(shared or {})
        if problem := pooling_problem(pooled or {}, list(fields), self.shared):
            raise DataError(f"pooled{problem}")
        self.pooled = {name: dict(pool) for name, pool in (pooled or {}).items()}
        several = {column for pool in self.pooled.values() for column in pool["columns"]}
        vocabulary = whole_vocabulary({"vocabulary": vocabulary, "shared": self.shared, "pooled": self.pooled})
        self._lookups: dict[str, Categories | Hashes] = {}
        self._edges: dict[str, FloatArray] = {}
        known: dict[tuple[str, bool], Categories | Hashes | None] = {}
        for field, size in fields.items():
            entries = vocabulary.get(field)
            owner = self.shared.get(field, field), field in several
            if owner not in known:
                known[owner] = text_ids(entries or [], size, several=field in several)
            lookup = known[owner]
            expected = size if isinstance(lookup, Hashes) else len(entries or []) + (2 if lookup is None else 0)
            if entries is None or size != expected:
                raise DataError(f"field {field!r} has {shown(size)} ids, and its vocabulary is {shown(entries)}: this does not fit")
            if lookup is None:
                self._edges[field] = np.asarray(entries, dtype=np.float64)
            else:
                self._lookups[field] = lookup
        self.watch: Watch | None = None
        self.num_embeddings, self.dense = fields, tuple(dense)
        self.constants = constant_ids(fields, vocabulary, derived or {})
        self._derived = tuple(one for one in _derived(derived or {}) if one.constant is None)
        position = {field: place for place, field in enumerate(fields)}
        self._texts = [(position[field], field, lookup) for field, lookup in self._lookups.items() if field not in self.constants]
        self._fixed = [(position[field], id_) for field, id_ in self.constants.items()]
        self._numbers = tuple(dict.fromkeys([*self._edges, *dense]))
        self._buckets = [(position[field], self._numbers.index(field), cuts) for field, cuts in self._edges.items()]
        for column in dense:
            if scaling.get(column, {}).get("treatment") not in ("standardise", "log1p"):
                raise DataError(f"dense column {column!r} has the scaling {shown(scaling.get(column))}, expected treatment, mean and std")
        self._dense_rows = [self._numbers.index(column) for column in dense]
        self._logs = [place for place, column in enumerate(dense) if scaling[column]["treatment"] == "log1p"]
        self._mean, self._std = (np.array([[scaling[column][key]] for column in dense], np.float64) for key in ("mean", "std"))
        made = {one.name for one in self._derived} | self.constants.keys()
        sources = [source for one in self._derived for source in one.sources()]
        self.columns = tuple(name for name in dict.fromkeys([*fields, *self.dense, *sources]) if name not in made)
        self.text_columns = frozenset({*self._lookups, *sources} - made)
        self.list_columns = frozenset(one.column for one in self._derived if one.value is not None)

    @classmethod
    def load(cls, path: str | Path) -> Encoder:
        """The encoder of a packed folder, or of the data that the run of a run folder was trained on.

        Of a packed folder it reads meta.json alone, of a run folder encoder.json and the head of model.safetensors; so the folder may hold
        nothing else. Raises TypeError or ValueError for what is not a path, DataError for another folder and for a damaged meta.json, and
        CheckpointError for a run's file that is missing or damaged, or for a run that has not written its weights yet.
        """
        folder = path_of("path", path)
        if os.path.isfile(folder / META):
            meta = read_meta(folder / META)
            return cls(tasks=meta.tasks, num_embeddings=meta.fields, dense=meta.dense, **meta.encoding)
        if os.path.isfile(folder / ENCODER):
            return cls(**read_run(folder))
        raise DataError(f"{folder} is neither a packed folder, which holds {META}, nor a run folder, which holds {ENCODER}; name one")

    def encode(self, table: Any) -> Encoded:
        """The ids and dense values of a table's rows, in their order.

        `table` is a mapping of column names to lists or one-dimensional arrays of cells, a pandas or polars DataFrame, an Arrow Table or
        RecordBatch, or anything else with `__arrow_c_stream__`. Cells are read as from a Parquet file: text, integers, floats, truth
        values, dates and times; None, NaN and null are missing. In a field with several values a cell is a list of these, or separated
        text. Columns that the encoder does not read are ignored, so labels may be there. What is neither a list nor an array of text,
        integers or numbers needs the package pyarrow, and so do derived columns and fields with several values.

        Raises DataError that names the column, and the row where it is one: for a missing column, columns of unequal length, cells of
        another type or of more than one, an infinite number, and a number that float32 cannot hold once it is scaled. Rows count from 1.
        """
        return self.encode_pieces(pieces_of(table, self.columns))

    def encode_shared(self, columns: Mapping[str, Sequence[Any]], shared: Mapping[str, Any], rows: int) -> Encoded:
        """The same of `rows` rows that have the cells of `shared`; a column that it lacks is a list of `rows` cells in `columns`.

        A shared cell is encoded once. Raises DataError for a wrong cell, as :meth:`encode` does.

        >>> vocabulary = {"a": ["<oov>", "x"], "b": ["<oov>", "x"]}
        >>> encoder = Encoder(tasks=["click"], num_embeddings={"a": 2, "b": 2}, dense=[], vocabulary=vocabulary, scaling={})
        >>> encoder.encode_shared({"b": ["x", "y"]}, {"a": "x"}, rows=2).ids.tolist()
        [[1, 1], [1, 0]]
        """
        return self.encode_pieces([Piece(columns, rows, Place(Path("table"), 0))], shared)

    def encode_pieces(self, pieces: Iterable[Piece], shared: Mapping[str, Any] | None = None) -> Encoded:
        """Encode one or more pieces of a table, which hold the encoder's columns, as :meth:`encode` does.

        Every row has the cells of `shared`, also where a piece has the column too. Each of these is encoded once, and so is a derived
        column that reads no others. The error of such a cell names its column alone.
        """
        same: Mapping[str, Any] = {}
        left: Sequence[Derived] = self._derived
        try:
            if shared is not None:
                same = {name: [shared[name]] for name in self.columns if name in shared}
                known = {*same}
                own = [one for one in left if known.issuperset(one.sources()) and not known.add(one.name)]  # type: ignore[func-returns-value]
                left = [one for one in left if one not in own]
                same = derived_too(Piece(same, 1, Place(Path("table"), 0)), own, {}).columns
            done = [self._encoded(derived_too(piece, left, same), shared is not None) for piece in pieces]
        except DataError as error:
            if error.column in same:
                error.row = None
            raise
        ids, dense = done[0] if len(done) == 1 else map(np.concatenate, zip(*done, strict=True))
        import torch

        return Encoded(torch.from_numpy(ids), torch.from_numpy(dense) if self.dense else None)

    def _encoded(self, piece: Piece, is_shared: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """A piece with the derived columns; a column of one cell is that of every row."""
        ids = np.empty((piece.rows, len(self.num_embeddings)), np.int64)
        for position, id_ in self._fixed:
            ids[:, position] = id_
        is_watched = self.watch is not None and piece.rows > 1
        varied = []
        for position, column, lookup in self._texts:
            texts, codes = text_cells(piece, column)
            found = lookup.ids(texts)
            ids[:, position] = found if codes is None else np.array(found, np.int64)[codes]
            if is_watched and not ids[:, position].any() and len(set(texts if codes is None else codes.tolist())) > 1:
                varied.append(position)
        values = np.empty((len(self._numbers), piece.rows))
        for row, column in enumerate(self._numbers):
            values[row] = number_cells(piece, column)
        if np.isinf(values).any():
            for row, column in enumerate(self._numbers):
                check_finite(values[row], column, piece.place)
        for position, row, edges in self._buckets:
            ids[:, position] = bucket_ids(values[row], edges)
        dense = np.empty((piece.rows, len(self.dense)), np.float32)
        if self.dense:
            scaled = values[self._dense_rows]
            scaled[self._logs] = treated(scaled[self._logs], "log1p")
            for place, row in enumerate(standardised(scaled, self._mean, self._std)):
                dense[:, place] = dense_float32(row, values[self._dense_rows[place]], self.dense[place], piece.place)
        if self.watch is not None and piece.rows:
            self.watch(ids, dense, varied, is_shared)
        return ids, dense


def _derived(definitions: Mapping[str, Mapping[str, Any]]) -> tuple[Derived, ...]:
    if not definitions:
        return ()
    try:
        from ..schema.fields import derived_columns

        return derived_columns(definitions)
    except ModuleNotFoundError as error:
        raise DataError(f"the encoder's derived columns need the package {error.name}: pip install 'dcrnn_fast[train]'") from error
    except ValueError as error:
        raise DataError(f"derived is {shown(dict(definitions))}, and defines no columns: {one_line(error)}") from error
