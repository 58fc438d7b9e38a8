"""How far a run is, and how that is read back from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import CheckpointError, shown
from .early_stopping import EarlyStopping


@dataclass
class Position:
    """How far a run is. ``epoch`` and ``batch`` count what is done; ``loss_sum`` and ``loss_rows`` belong to the current epoch."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    loss_rows: int = 0
    rows: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def restored_position(state: Mapping[str, Any], folder: Path) -> tuple[Position, EarlyStopping]:
    """Position and early stopping of a checkpoint's state. Raises :class:`CheckpointError` that names the entry that is wrong."""
    try:
        for key, kind in (("config", dict), ("data_digest", str), ("environment", dict)):
            if not isinstance(state[key], kind):
                raise TypeError(f"{key} is {shown(state[key])}")
        return TypeAdapter(Position).validate_python(state["position"]), TypeAdapter(EarlyStopping).validate_python(state["stopping"])
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        said = f"{'.'.join(map(str, problem['loc'])) or 'the position'} is {shown(problem['input'])}: {problem['msg']}"
    except (KeyError, TypeError) as error:
        said = f"it lacks an entry or has another type of it: {error}"
    raise CheckpointError(f"checkpoint {folder} holds no position of a run: {said}; delete the folder and use --resume again")
