"""The description in a weight file: which keys it has, and how large a model it may describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import CheckpointError
from ...support.model_inputs import check_negative_rate, check_pooled, check_shared_embeddings
from ..config import ModelConfig
from .run_files import first_problem

MAX_UNITS = 2**18
MAX_ROWS = 2**24
"""Rows that the tasks and scenarios read in all layers. A model's index tensors hold one number a row, and they are built before its
shapes are known."""

_Share = Annotated[float, Field(ge=0, le=1, strict=False)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    digest: str


class _Pooled(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    columns: Annotated[list[str], Field(min_length=1)]
    pooling: Literal["mean", "sum"]


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[ModelConfig, Field(strict=False)]
    relation: Literal["chain", "independent", "transfer"]
    tasks: Annotated[list[str], Field(min_length=1, max_length=1024)]
    funnel: bool
    fields: list[Annotated[tuple[str, Annotated[int, Field(ge=1, lt=2**31)]], Field(strict=False)]]
    dense: list[str]
    data: _Data
    encoding: str
    shared: dict[str, str]
    pooled: dict[str, _Pooled]
    base_rates: dict[str, _Share]
    negative_rate: float
    id_shares: dict[str, dict[Literal["oov", "missing"], _Share | None]]

    @model_validator(mode="after")
    def _sizes(self) -> _Description:
        model = self.model
        if missing := ModelConfig.model_fields.keys() - model.model_fields_set:
            raise ValueError(f"model lacks {min(missing)}")
        check_negative_rate(self.negative_rate, len(self.tasks), self.relation)
        if len({name for name, _ in self.fields}) < len(self.fields):
            raise ValueError("a field is named twice")
        check_shared_embeddings(self.shared, [name for name, _ in self.fields], [size for _, size in self.fields])
        pooled = {name: pool.model_dump() for name, pool in self.pooled.items()}
        check_pooled(pooled, [name for name, _ in self.fields], self.shared)
        bins, fields = model.dense_bins, len(self.fields) - sum(len(pool.columns) - 1 for pool in self.pooled.values())
        units = (fields + (len(self.dense) if bins else bool(self.dense))) * model.embedding_dim
        if len(self.dense) * bins > MAX_ROWS:
            raise ValueError(f"it asks for {len(self.dense) * bins:,} bins, expected at most {MAX_ROWS:,}")
        rows = len(self.tasks) * ((1 if model.tied else model.steps) * units + sum(model.tower_dims))
        scenarios = max([size - 1 for name, size in self.fields if name == model.scenario], default=0)
        rows += scenarios * (1 if model.tied else model.steps) * round(model.scenario_ratio * units)
        if units > MAX_UNITS or rows > MAX_ROWS:
            raise ValueError(f"it asks for {units:,} units and {rows:,} rows, expected at most {MAX_UNITS:,} and {MAX_ROWS:,}")
        return self


def check_description(about: Any, path: Path) -> None:
    """Raise :class:`CheckpointError` that names the file, the key and its value unless ``about`` describes a model."""
    try:
        _Description.model_validate(about)
    except ValidationError as error:
        problem = first_problem(error, "the description")
        raise CheckpointError(f"{path} describes no model: {problem}; give the model.safetensors of a run folder") from error
