"""A run's model with its encoding: raw rows in, named probabilities out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from ..data import Encoder
from ..data.encoder.memory import pieces_of
from ..data.encoder.run_folder import read_encoding
from ..errors import DataError
from ..nn.model import DCRNN
from ..support.files import path_of
from ..support.model_inputs import checked
from ..support.strict_json import json_digest
from ..training.evaluate.calibration_file import Calibration, read_calibration
from ..training.folder.layout import RunFolder
from ..training.folder.weights import load_sealed
from .unseen import Cells, Unseen, cells_of

Scores = dict[str, npt.NDArray[np.float32]]
BATCH = 8192


def model_id(weights: str, encoding: str, calibration: Calibration | None) -> str:
    """SHA-256, in hex, over the digests of a run's weights, encoder and calibration; without a calibration, over null in its place.

    ``weights`` and ``encoding`` are the digests that ``model.safetensors`` holds. A run folder and all files that are exported from it have
    one id, whatever their format and backend.

    >>> from dcrnn_fast.serving import model_id
    >>> model_id("3f", "9a", None)[:12]
    '444af7a5f1a5'
    """
    calibrated = None if calibration is None else json_digest(calibration.model_dump())
    return json_digest({"calibration": calibrated, "encoder": encoding, "weights": weights})


class Run(NamedTuple):
    """What a :class:`Ranker` is made of, the encoding that its encoder has, and what the run says of its fields and dense columns."""

    model: DCRNN
    encoder: Encoder
    calibration: Calibration | None
    id: str
    encoding: dict[str, Any]
    cells: list[Cells]
    ranges: dict[str, list[float]]


def read_run(path: str | Path, *, device: str, backend: str) -> Run:
    """The parts of a run, which belong together even if files are replaced meanwhile; see :meth:`Ranker.load`.

    The weight file, opened once, holds the digest of its encoder, and a calibration holds that of its weights; so another run's file is an
    error. A link that leads to the folder is followed once.
    """
    path = path_of("path", path)
    folder = RunFolder(Path(real) if (real := os.path.realpath(path)) != os.path.abspath(path) else path)
    if not folder.encoder.is_file():
        raise DataError(f"{path} is not a run folder, which holds {folder.encoder.name}; name the --output folder of a training run")
    model, about, weights = load_sealed(folder.weights, device=device, backend=backend)
    encoding = read_encoding(folder.encoder, about)
    encoder = Encoder(tasks=about["tasks"], num_embeddings=dict(about["fields"]), dense=about["dense"], **encoding)
    calibration = read_calibration(folder.calibration, about, weights)
    id, cells, ranges = model_id(weights, about["encoding"], calibration), cells_of(encoder, encoding, about), about.get("dense_ranges", {})
    return Run(cast(DCRNN, model), encoder, calibration, id, encoding, cells, ranges)


def as_table(table: Any, encoder: Encoder) -> Any:
    """A table as it is, or a mapping of an encoder's columns to single cells, or a pandas Series of them, as a table of one row."""
    if type(table).__name__ == "Series" and hasattr(table, "to_dict"):
        table = table.to_dict()
    if not isinstance(table, Mapping):
        return table
    cells = [table[name] for name in encoder.columns if name in table and name not in encoder.list_columns]
    if cells and all(isinstance(cell, (str, bytes)) or not hasattr(cell, "__len__") or getattr(cell, "ndim", 1) == 0 for cell in cells):
        return {name: [table[name]] for name in encoder.columns if name in table}
    return table


class Ranker:
    """Scores rows: it encodes them as the run's training rows were, computes the probabilities, and names them.

    Take one from :meth:`load`. ``encoder``, ``model`` and ``calibration`` (or None) are its parts, ``columns`` what a table must hold, and
    ``names`` what :meth:`predict` returns: the tasks and, in a funnel, each task given the one before it. ``id`` is that of
    :func:`dcrnn_fast.serving.model_id`, or None where no run's files say it. ``unseen`` counts the cells of scored rows that the model does
    not know; it is None where no run's files say how many the train rows had.

    Example, of a model that no run has trained:
        >>> from dcrnn_fast import DCRNN, Ranker
        >>> from dcrnn_fast.data import Encoder
        >>> encoder = Encoder(
        ...     tasks=["click", "consume"], num_embeddings={"item": 3}, dense=[], vocabulary={"item": ["<oov>", "i1", "i2"]}, scaling={}
        ... )
        >>> ranker = Ranker(DCRNN(encoder.num_embeddings, tasks=encoder.tasks), encoder)
        >>> scores = ranker.predict({"item": ["i2", "i1", "new"]})
        >>> list(scores), scores["click"].shape
        (['click', 'consume', 'consume_given_click'], (3,))
    """

    def __init__(self, model: DCRNN, encoder: Encoder, calibration: Calibration | None = None, id: str | None = None) -> None:
        of_model = dict(zip(model.field_names, model.num_embeddings, strict=True)), model.num_dense, model.tasks
        if of_model != (encoder.num_embeddings, len(encoder.dense), encoder.tasks):
            raise DataError("model and encoder do not fit: they have other fields, dense columns or tasks; take both from one run folder")
        self.model, self.encoder, self.calibration, self.id = model.eval(), encoder, calibration, id
        self.unseen: Unseen | None = None
        self.columns = list(encoder.columns)
        self.names = (*model.tasks, *(model.conditionals if model.relation == "chain" else ()))
        self._device, self._prepared = model.features.embedding.weight.device, model.prepare_inference()
        self._checks = self._device.type != "cpu"  # where the model's own checks would wait for the device

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", backend: str = "auto", strict: bool = False) -> Ranker:
        """The ranker of a run folder. It reads ``model.safetensors`` and ``encoder.json``, and applies ``calibration.json`` if it is there.

        Args:
            path: the folder. Nothing in it is unpickled.
            device: "auto" (the GPU if there is one), "cpu", "cuda" or "cuda:N".
            backend: of the operators, see ``dcrnn-fast info``.
            strict: a field that has lost the ids which it had in the train rows is an error of :meth:`predict` and :meth:`score`. By
                default it is a warning, once.

        Raises:
            TypeError, ValueError: ``path`` is not a path.
            CheckpointError: a file is missing, damaged or changed, the run has not written its weights yet, or its calibration was fitted
                to other weights.
            DataError: the folder holds no run.
            ConfigError, BackendUnavailable: device or backend cannot be used.
        """
        run = read_run(path, device=device, backend=backend)
        ranker = cls(run.model, run.encoder, run.calibration, run.id)
        ranker.unseen = Unseen(run.encoder, run.cells, run.ranges, strict=strict)
        return ranker

    def predict(self, table: Any) -> Scores:
        """Probabilities [B] in float32 by name, for the rows of a table in their order.

        Args:
            table: a mapping of column names to lists or arrays, a pandas or polars DataFrame, an Arrow table or record batch, a list of
                rows that are mappings; see :meth:`dcrnn_fast.data.Encoder.encode`. It needs no labels. Other columns than :attr:`columns`
                are ignored. A mapping of column names to single cells, such as ``{"user": "u7", "last_items": [3, 5]}``, or a pandas
                Series is one row: the arrays then have one element.

        Raises:
            DataError: the table lacks a column, or a cell is not what its column is read as; the message names column and row.
        """
        return self.predict_encoded(*self.encoder.encode(as_table(table, self.encoder)))

    def score(self, user: Mapping[str, Any], items: Any) -> Scores:
        """Probabilities [N] in float32 by name of one user's N items, in the order of the items.

        The result is that of :meth:`predict` for N rows that repeat the user's cells, but the user's cells are encoded once.

        Args:
            user: a cell for each of the user's columns.
            items: a table of all other columns that :attr:`columns` names, as :meth:`predict` takes it. A column that the user has is not
                read from it.

        Raises:
            TypeError: ``user`` is not a mapping.
            DataError: neither has a column, or a cell is not what its column is read as; the message names column and row.

        Example:
            >>> from dcrnn_fast import DCRNN, Ranker
            >>> from dcrnn_fast.data import Encoder
            >>> vocabulary = {"user": ["<oov>", "u7"], "item": ["<oov>", "i1", "i2"]}
            >>> encoder = Encoder(tasks=["click"], num_embeddings={"user": 2, "item": 3}, dense=[], vocabulary=vocabulary, scaling={})
            >>> ranker = Ranker(DCRNN(encoder.num_embeddings, tasks=encoder.tasks), encoder)
            >>> ranker.score({"user": "u7"}, {"item": ["i1", "i2", "new"]})["click"].shape
            (3,)
        """
        if not isinstance(user, Mapping):
            raise TypeError(f"user: got {type(user).__name__}, expected a mapping of column names to the user's cells")
        if not (of_items := [name for name in self.columns if name not in user]):
            raise DataError("user has every column that is read; give it the user's alone, and the others in items")
        try:
            encoded = self.encoder.encode_pieces(pieces_of(items, of_items, "items"), user)
        except DataError as error:
            if error.column in user:
                error.table = "user"
            raise
        return self.predict_encoded(*encoded)

    def predict_encoded(self, ids: torch.Tensor, dense: torch.Tensor | None) -> Scores:
        """Probabilities, as :meth:`predict` gives them, of encoded rows: ids [B, F] int64, dense [B, Nd] float32 or None."""
        parts: list[torch.Tensor] = []
        with checked(self.model, ids, dense) if self._checks else nullcontext():
            for start in range(0, max(len(ids), 1), BATCH):
                rows = slice(start, start + BATCH)
                found = self._prepared.predict(ids[rows].to(self._device), None if dense is None else dense[rows].to(self._device))
                parts.append(torch.stack([found[name] for name in self.names]))
        scores = dict(zip(self.names, torch.cat(parts, dim=1).cpu().numpy(), strict=True))  # a GPU is waited for once
        if self.calibration is None:
            return scores
        return self.calibration.apply(scores, self.model.tasks, self.model.negative_rate)
