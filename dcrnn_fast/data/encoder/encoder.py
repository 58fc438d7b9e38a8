"""Encodes tables in memory as `prepare` encodes the same rows of a file. Mappings of lists and arrays need NumPy and PyTorch only."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ...errors import DataError, one_line, shown
from ...support.files import path_of
from ...support.pooled_fields import pooling_problem
from ..codes.numbers import FloatArray, Place, bucket_ids, check_finite, dense_float32, dense_values
from ..codes.texts import Categories, Hashes, constant_ids, text_ids
from ..packed.meta import META, read_meta, whole_vocabulary
from .memory import Piece, derived_too, number_cells, pieces_of, text_cells
from .run_folder import ENCODER, read_run

if TYPE_CHECKING:
    from ..schema.fields import Derived


Columns = tuple[tuple[str, ...], tuple[str, ...]]
Watch = Callable[[Columns, npt.NDArray[np.int64], npt.NDArray[np.float32], list[int]], None]
"""Takes the names of fields and of dense columns, their encoded rows [B, F] and [B, Nd], and the fields that hold several unknown texts."""


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
        self._scaling = scaling
        self.watch: Watch | None = None
        self.constants = constant_ids(fields, vocabulary, derived or {})
        self._arrange(fields, tuple(dense), tuple(one for one in _derived(derived or {}) if one.constant is None))
        made = {one.name for one in self._derived} | self.constants.keys()
        sources = [source for one in self._derived for source in one.sources()]
        self.columns = tuple(name for name in dict.fromkeys([*fields, *self.dense, *sources]) if name not in made)
        self.text_columns = frozenset({*self._lookups, *sources} - made)
        self.list_columns = frozenset(one.column for one in self._derived if one.value is not None)

    def _arrange(self, fields: dict[str, int], dense: tuple[str, ...], derived: tuple[Derived, ...]) -> None:
        """Make the ids of these fields and the values of these dense columns; derive these columns first."""
        self.num_embeddings, self.dense, self._derived = fields, dense, derived
        self._names = tuple(fields)
        position = {field: place for place, field in enumerate(fields)}
        read = {field: lookup for field, lookup in self._lookups.items() if field in fields and field not in self.constants}
        self._texts = [(position[field], field, lookup) for field, lookup in read.items()]
        self._fixed = [(position[field], id_) for field, id_ in self.constants.items() if field in fields]
        edges = {field: cuts for field, cuts in self._edges.items() if field in fields}
        self._numbers = tuple(dict.fromkeys([*edges, *dense]))
        self._buckets = [(position[field], self._numbers.index(field), cuts) for field, cuts in edges.items()]
        self._scales = _scales(dense, self._numbers, self._scaling)

    @classmethod
    def load(cls, path: str | Path) -> Encoder:
        """The encoder of a packed folder, or of the data that the run of a run folder was trained on.

        Of a packed folder it reads meta.json alone, of a run folder encoder.json and the head of model.safetensors; so the folder may hold
        nothing else. Raises TypeError or ValueError for what is no path, DataError for another folder and for a meta.json that is damaged,
        and CheckpointError for a run's file that is missing or damaged, or for a run that has not written its weights yet.
        """
        folder = path_of("path", path)
        if os.path.isfile(folder / META):
            meta = read_meta(folder / META)
            return cls(tasks=meta.tasks, num_embeddings=meta.fields, dense=meta.dense, **meta.encoding)
        if os.path.isfile(folder / ENCODER):
            return cls(**read_run(folder))
        raise DataError(f"{folder} is no packed folder, which holds {META}, and no run folder, which holds {ENCODER}; name one of these")

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

        A shared cell is encoded once, unless a derived column is made of it. Raises DataError for a wrong cell, as :meth:`encode` does.

        >>> vocabulary = {"a": ["<oov>", "x"], "b": ["<oov>", "x"]}
        >>> encoder = Encoder(tasks=["click"], num_embeddings={"a": 2, "b": 2}, dense=[], vocabulary=vocabulary, scaling={})
        >>> encoder.encode_shared({"b": ["x", "y"]}, {"a": "x"}, rows=2).ids.tolist()
        [[1, 1], [1, 0]]
        """
        repeated = {source for one in self._derived for source in one.sources()}
        cells = {name: [shared[name]] * (rows if name in repeated else 1) if name in shared else columns[name] for name in self.columns}
        return self.encode_pieces([Piece(cells, rows, Place(Path("table"), 0))])

    def encode_pieces(self, pieces: Iterable[Piece]) -> Encoded:
        """Encode one or more pieces of a table, which hold the encoder's columns, as :meth:`encode` does."""
        done = [self._encoded(piece) for piece in pieces]
        ids, dense = done[0] if len(done) == 1 else map(np.concatenate, zip(*done, strict=True))
        return Encoded(torch.from_numpy(ids), torch.from_numpy(dense) if self.dense else None)

    def part(self, columns: Collection[str]) -> Encoder:
        """An encoder that gives only the ids and dense values that can be made of these columns.

        A derived column that reads others too is in no part, nor is a field that is known in training alone. The part shares this
        encoder's vocabularies.

        >>> encoder = Encoder(
        ...     tasks=["click"], num_embeddings={"city": 2, "item": 3}, dense=[],
        ...     vocabulary={"city": ["<oov>", "Oslo"], "item": ["<oov>", "a", "b"]}, scaling={},
        ... )
        >>> encoder.part(["item"]).encode({"item": ["b", "c"]}).ids.tolist()
        [[2], [0]]
        """
        part, made, derived = copy(self), {name for name in self.columns if name in columns}, []
        part.columns = tuple(name for name in self.columns if name in made)
        part.text_columns = self.text_columns & made
        for one in self._derived:
            if made.issuperset(one.sources()):
                derived.append(one)
                made.add(one.name)
        fields = {field: size for field, size in self.num_embeddings.items() if field in made}
        part._arrange(fields, tuple(name for name in self.dense if name in made), tuple(derived))
        return part

    def _encoded(self, piece: Piece) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        if self._derived:
            piece = derived_too(piece, self._derived)
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
        for treatment, positions, rows, mean, std in self._scales:
            scaled = dense_values(values[rows], treatment, mean, std)
            for at, position in enumerate(positions):
                dense[:, position] = dense_float32(scaled[at], values[rows[at]], self.dense[position], piece.place)
        if self.watch is not None and piece.rows:
            self.watch((self._names, self.dense), ids, dense, varied)
        return ids, dense


def _derived(definitions: Mapping[str, Mapping[str, Any]]) -> tuple[Derived, ...]:
    if not definitions:
        return ()
    try:
        from ..schema.fields import derived_columns
    except ModuleNotFoundError as error:
        raise DataError(f"the encoder's derived columns need the package {error.name}: pip install 'dcrnn_fast[train]'") from error
    try:
        return derived_columns(definitions)
    except ValueError as error:
        raise DataError(f"derived is {shown(dict(definitions))}, and defines no columns: {one_line(error)}") from error


class _Scales(NamedTuple):
    """The n dense columns of a treatment: positions among the dense columns and among the numbers, means and deviations [n, 1]."""

    treatment: str
    positions: list[int]
    rows: list[int]
    mean: FloatArray
    std: FloatArray


def _scales(dense: Sequence[str], numbers: Sequence[str], scaling: Mapping[str, Mapping[str, Any]]) -> list[_Scales]:
    by_treatment: dict[str, list[str]] = {"standardise": [], "log1p": []}
    for column in dense:
        treatment = scaling.get(column, {}).get("treatment")
        if treatment not in by_treatment:
            raise DataError(f"dense column {column!r} has the scaling {shown(scaling.get(column))}, expected treatment, mean and std")
        by_treatment[treatment].append(column)
    return [
        _Scales(
            treatment,
            [dense.index(column) for column in columns],
            [numbers.index(column) for column in columns],
            *(np.array([[scaling[column][key]] for column in columns], dtype=np.float64) for key in ("mean", "std")),
        )
        for treatment, columns in by_treatment.items()
        if columns
    ]


class UserItems:
    """An encoder's columns, divided into the user's and the items'.

    >>> encoder = Encoder(
    ...     tasks=["click"], num_embeddings={"city": 2, "item": 3}, dense=[],
    ...     vocabulary={"city": ["<oov>", "Oslo"], "item": ["<oov>", "a", "b"]}, scaling={},
    ... )
    >>> UserItems(encoder, ["city"]).encode({"city": "Oslo"}, {"item": ["b", "c"]}).ids.tolist()
    [[1, 2], [1, 0]]
    """

    def __init__(self, encoder: Encoder, user_columns: Collection[str]) -> None:
        """Raises DataError where no column is left for the items."""
        self._encoder, self._user = encoder, encoder.part(user_columns)
        self._items = encoder.part([name for name in encoder.columns if name not in user_columns])
        if not self._items.columns:
            raise DataError("user has every column that is read; give it the user's alone, and the others in items")
        of_user, of_items, of_both = (len(one.num_embeddings) + len(one.dense) for one in (self._user, self._items, encoder))
        self._is_mixed = of_user + of_items + len(encoder.constants) < of_both  # a derived column reads columns of both

    def encode(self, user: Mapping[str, Any], items: Any) -> Encoded:
        """The items' rows, with the user's ids and numbers in each. The user's cells are encoded once, unless a derived column reads both.

        Raises DataError as :meth:`Encoder.encode` does; it says whose cell or column is wrong.
        """
        if self._is_mixed:
            return _named("user and items", lambda: self._repeated(user, items))
        if self._user.columns:
            of_user = _named("user", lambda: self._user.encode({name: [user[name]] for name in self._user.columns}))
        else:
            of_user = Encoded(torch.empty(1, 0, dtype=torch.int64), None)
        of_items = _named("items", lambda: self._items.encode(items))
        fields, numbers = list(self._encoder.num_embeddings), list(self._encoder.dense)
        ids = torch.empty(len(of_items.ids), len(fields), dtype=torch.int64)
        dense = torch.empty(len(of_items.ids), len(numbers), dtype=torch.float32) if numbers else None
        for name, id_ in self._encoder.constants.items():
            ids[:, fields.index(name)] = id_
        for part, encoded in ((self._user, of_user), (self._items, of_items)):
            ids[:, [fields.index(name) for name in part.num_embeddings]] = encoded.ids
            if dense is not None and encoded.dense is not None:
                dense[:, [numbers.index(name) for name in part.dense]] = encoded.dense
        return Encoded(ids, dense)

    def _repeated(self, user: Mapping[str, Any], items: Any) -> Encoded:
        """Rows of all columns, which repeat the user's cells."""
        return self._encoder.encode_pieces(
            piece._replace(columns={**piece.columns, **{name: [user[name]] * piece.rows for name in self._user.columns}})
            for piece in pieces_of(items, self._items.columns)
        )


def _named(what: str, encode: Callable[[], Encoded]) -> Encoded:
    try:
        return encode()
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
