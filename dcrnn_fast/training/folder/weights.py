"""``model.safetensors``: weights with the description that rebuilds their model; and ``encoder.json``, which encodes tables for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

import dcrnn_fast

from ...data import PackedDataset, PackedSplit
from ...data.encoder.run_folder import REMEDY
from ...data.inspect.base_rates import base_rates
from ...data.inspect.oov import id_shares
from ...errors import CheckpointError, ConfigError
from ...support import strict_json
from ...support.files import path_of
from ...support.model_inputs import SCENARIO_RATIO, check_negative_rate, check_pooled, check_shared_embeddings
from ..config import ModelConfig, RunConfig, in_words
from ..device import select_backend, select_device
from .layout import RunFolder
from .tensors import check_tensors, load_tensors, read_sealed, write_sealed

KEY = "dcrnn_fast"
MAX_UNITS = 2**18
MAX_ROWS = 2**24
"""Rows that the tasks and scenarios read in all layers. A model's index tensors hold one number a row, and they are built before its
shapes are known."""

RANGE_ROWS = 100_000
"""Train rows, spread evenly over all, whose values tell the ranges of dense columns."""

_Share = Annotated[float, Field(ge=0, le=1, strict=False)]
_Shares = dict[str, dict[Literal["oov", "missing"], _Share | None]]


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[ModelConfig, Field(strict=False)]
    relation: Literal["chain", "independent", "transfer"]
    tasks: Annotated[list[str], Field(min_length=1, max_length=1024)]
    funnel: bool
    fields: list[Annotated[tuple[str, Annotated[int, Field(ge=1, lt=2**31)]], Field(strict=False)]]
    dense: list[str]
    data: Annotated[dict[Literal["name", "digest"], str], Field(min_length=2)]
    encoding: str
    shared: dict[str, str]
    pooled: dict[str, Any]
    base_rates: dict[str, _Share]
    negative_rate: float
    id_shares: _Shares
    valid_shares: _Shares = {}
    dense_ranges: dict[str, Annotated[tuple[float, float], Field(strict=False)]] = {}
    first_order_only: list[str] = []

    @model_validator(mode="after")
    def _sizes(self) -> _Description:
        model = self.model
        if missing := ModelConfig.model_fields.keys() - model.model_fields_set:
            raise ValueError(f"model lacks {min(missing)}")
        check_negative_rate(self.negative_rate, len(self.tasks), self.relation)
        if len({name for name, _ in self.fields}) < len(self.fields):
            raise ValueError("a field is named twice")
        check_shared_embeddings(self.shared, [name for name, _ in self.fields], [size for _, size in self.fields])
        pooled = check_pooled(self.pooled, [name for name, _ in self.fields], self.shared)
        bins, fields = model.dense_bins, len(self.fields) - sum(len(pool["columns"]) - 1 for pool in pooled.values())
        units = (fields + (len(self.dense) if bins else bool(self.dense))) * model.embedding_dim
        if len(self.dense) * bins > MAX_ROWS:
            raise ValueError(f"it asks for {len(self.dense) * bins:,} bins, expected at most {MAX_ROWS:,}")
        rows = len(self.tasks) * ((1 if model.tied else model.steps) * units + sum(model.tower_dims))
        scenarios = max([size - 1 for name, size in self.fields if name == model.scenario], default=0)
        rows += scenarios * (1 if model.tied else model.steps) * round(SCENARIO_RATIO * units)
        if units > MAX_UNITS or rows > MAX_ROWS:
            raise ValueError(f"it asks for {units:,} units and {rows:,} rows, expected at most {MAX_UNITS:,} and {MAX_ROWS:,}")
        return self


def check_description(about: Any, path: Path) -> None:
    """Raise :class:`CheckpointError` that names the file, the key and its value unless ``about`` describes a model."""
    try:
        _Description.model_validate(about)
    except ValidationError as error:
        problem = in_words(error.errors()[0], "the description")
        raise CheckpointError(f"{path} describes no model: {problem}; give the model.safetensors of a run folder") from error


def describe(config: RunConfig, dataset: PackedDataset) -> dict[str, Any]:
    """The description in a weight file: :func:`load_model` rebuilds the model by it, and :func:`evaluate` compares its data with others."""
    meta, rows, valid = dataset.meta, dataset.split("train"), dataset.splits.get("valid")
    return {
        "model": config.model.model_dump(mode="json"),
        "relation": config.model.relation or meta.relation,
        "tasks": list(meta.tasks),
        "funnel": meta.funnel,
        "fields": [[name, size] for name, size in meta.fields.items()],
        "dense": list(meta.dense),
        "shared": dict(meta.shared),
        "pooled": dict(meta.pooled),
        "data": {"name": meta.name, "digest": meta.digest},
        "encoding": strict_json.json_digest(meta.encoding),
        "base_rates": base_rates(np.asarray(rows.labels), meta.tasks, funnel=meta.funnel),
        "id_shares": id_shares(rows, meta),
        "valid_shares": {} if valid is None else id_shares(valid, meta),
        "dense_ranges": _dense_ranges(rows, meta.dense),
        "negative_rate": config.negative_rate or 1.0,
        **({"first_order_only": list(meta.train_only)} if meta.train_only else {}),
    }


def _dense_ranges(train: PackedSplit, columns: Sequence[str]) -> dict[str, list[float]]:
    """The 1% and the 99% quantile of each dense column. A missing value is 0, and zeros do not count, unless there is nothing else."""
    found = {}
    if train.dense is not None and len(train):
        for name, column in zip(columns, np.array(train.dense[:: 1 + len(train) // RANGE_ROWS]).T, strict=True):
            values = column[column != 0] if column.any() else column
            found[name] = [float(np.quantile(values, 0.01, method="lower")), float(np.quantile(values, 0.99, method="higher"))]
    return found


def build_model(about: Mapping[str, Any], *, device: torch.device, backend: str) -> nn.Module:
    """The DCRNN of a description (see :func:`describe`). Raises :class:`ConfigError` if the model refuses an argument."""
    try:
        options = ModelConfig.model_validate(about["model"]).model_dump() | {"relation": about["relation"]}
        options["sparse"] = options.pop("embedding") == "sparse"
        return dcrnn_fast.DCRNN(
            dict(about["fields"]),
            num_dense=len(about["dense"]),
            tasks=tuple(about["tasks"]),
            shared_embeddings=about["shared"],
            pooled=about["pooled"],
            first_order_only=about.get("first_order_only", ()),
            backend=backend,
            device=device,
            **options,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the configuration's model section does not fit the data set {about['data']['name']}: {error}") from error


def export_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Write weights as safetensors with their description. Returns the digest over both."""
    return write_sealed(path, tensors, about, KEY)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors and the description of a ``model.safetensors``, and the digest over both.

    The file is opened once: another one may take its place meanwhile. Raises :class:`CheckpointError` if it is missing, damaged or tampered
    with, or its description is none.
    """
    found = read_sealed(path, KEY, "has no dcrnn_fast description; give the model.safetensors of a run folder", REMEDY)
    check_description(found[1], path)
    return found


def load_model(path: str | Path, *, device: str | torch.device = "cpu", backend: str = "auto") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the model of a run from its ``model.safetensors``.

    Args:
        path: the file, or the run folder that holds it; nothing in it is unpickled.
        device: where the model's parameters go.
        backend: backend of the operators, see ``dcrnn-fast info``.

    Returns:
        The :class:`dcrnn_fast.DCRNN` in evaluation mode, and the file's description: ``tasks``, ``fields`` (each column's name and number
        of ids), ``dense`` (the dense columns' names), ``relation``, ``funnel``, ``model``, ``data``, ``encoding``, ``base_rates`` (the
        part of positive labels among the training rows, by task), ``id_shares`` (the parts of the training rows that are out of
        vocabulary and missing, by field), ``valid_shares`` (the same of the validation rows), ``dense_ranges`` (the 1% and 99% quantiles
        of the scaled training values, by dense column), ``shared`` (by field with the embeddings of another: that field), ``pooled`` (by
        field with several values: its columns and its pooling), ``negative_rate``, by which the model's ``predict`` is corrected, and
        ``first_order_only`` (the fields that are known in training alone), if there are any.

    Raises:
        CheckpointError: the file is missing, damaged or tampered with, or does not fit the model that it describes. It takes little more
            memory than the file to find that out.
        ConfigError: ``device`` or ``backend`` names none.
        BackendUnavailable: the backend cannot run here.

    Example::

        model, about = load_model("runs/census/model.safetensors")
        probabilities = model.predict(ids)  # ids: int64 [B, len(about["fields"])]
    """
    path = path_of("path", path)
    return load_sealed(RunFolder(path).weights if path.is_dir() else path, device=device, backend=backend)[:2]


def load_sealed(path: Path, *, device: str | torch.device, backend: str) -> tuple[nn.Module, dict[str, Any], str]:
    """What :func:`load_model` returns of a weight file, and the digest over its content."""
    place = select_device(str(device))
    select_backend(backend, place)
    tensors, about, digest = read_weights(path)
    try:
        # On the meta device a model takes no memory, whatever sizes the description asks for.
        check_tensors(build_model(about, device=torch.device("meta"), backend=backend), tensors, path)
    except ConfigError as error:
        raise CheckpointError(f"{path} describes no model: {error}; give the model.safetensors of a run folder") from error
    model = build_model(about, device=place, backend=backend)
    load_tensors(model, tensors, path)
    model.negative_rate = about["negative_rate"]
    return model.eval(), about, digest
