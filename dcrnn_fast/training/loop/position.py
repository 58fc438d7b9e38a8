"""How far a run is, and how that is read back from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict  # pydantic checks no TypedDict of ``typing`` before Python 3.12

from ...errors import shown
from ..folder.checkpoint import damaged, step_of
from ..folder.problems import first_problem
from .stopping import EarlyStopping

Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]


@with_config(ConfigDict(extra="forbid"))
class TaskMetrics(TypedDict):
    """The metrics of one task, see :func:`dcrnn_fast.training.evaluate.metrics.task_metrics`."""

    rows: Count
    positives: Count
    auc: Number | None
    log_loss: Number | None
    calibration: Number | None
    gauc: NotRequired[Number | None]
    role: NotRequired[Literal["CTR", "CTCVR", "CVR"]]


@with_config(ConfigDict(extra="forbid"))
class EvaluationRecord(TypedDict):
    """One evaluation on the validation rows, after ``step`` steps, in or at the end of ``epoch`` (from 1); ``valid`` holds the metrics.

    That of the start has step 0, epoch 0 and no ``train_loss``. Earlier versions had none.
    """

    epoch: Count
    step: Count
    train_loss: Number | None
    valid: dict[str, TaskMetrics]
    monitor: Number


@dataclass
class Position:
    """How far a run is. ``epoch`` and ``batch`` count what is done; ``loss_sum`` and ``loss_rows`` belong to the current epoch."""

    step: Count = 0
    epoch: Count = 0
    batch: Count = 0
    loss_sum: Number = 0.0
    loss_rows: Count = 0
    rows: Count = 0
    seconds: Number = 0.0
    step_seconds: Number = 0.0
    curve: list[tuple[Count, Number]] = field(default_factory=list)
    history: list[EvaluationRecord] = field(default_factory=list)


def restored_position(state: Mapping[str, Any], folder: Path) -> tuple[Position, EarlyStopping]:
    """Position and early stopping of a checkpoint's state.

    Raises :class:`dcrnn_fast.errors.CheckpointError` that names the file and the entry that is wrong, or that no run can reach.
    """
    try:
        for key, kind in (("config", dict), ("data_digest", str), ("environment", dict)):
            if not isinstance(state[key], kind):
                raise TypeError(f"{key} is {shown(state[key])}")
        if not isinstance(state.get("start", {}), dict):
            raise TypeError(f"start is {shown(state['start'])}")
        position = TypeAdapter(Position).validate_python(state["position"])
        stopping = TypeAdapter(EarlyStopping).validate_python(_by_step(state["stopping"], position))
        said = _impossible(position, stopping, step_of(folder))
        if not said:
            return position, stopping
    except ValidationError as error:
        said = first_problem(error, "the position")
    except (KeyError, TypeError) as error:
        said = f"it lacks an entry or has another type of it: {error}"
    raise damaged(folder, folder / "state.json", f"holds no position of a run: {said}")


def _by_step(stopping: Any, at: Position) -> Any:
    """The state of early stopping, which earlier versions wrote with the number of the best epoch, one evaluation each."""
    if not isinstance(stopping, Mapping) or "best_epoch" not in stopping:
        return stopping
    epoch = stopping["best_epoch"]
    step = next((record["step"] for record in at.history if record["epoch"] == epoch), epoch)
    return {key: value for key, value in stopping.items() if key != "best_epoch"} | {"best_step": step}


def _impossible(at: Position, stopping: EarlyStopping, step: int | None) -> str:
    """What contradicts itself, in words; empty if nothing does."""
    best, steps = stopping.best_step, [record["step"] for record in at.history]
    if step is not None and at.step != step:
        return f"step is {shown(at.step)}, but the folder is that of step {step}"
    done = {record["epoch"] for record in at.history if record["step"]} - {at.epoch + 1}
    if len(done) != at.epoch or done != set(range(1, len(done) + 1)):
        return f"epoch is {shown(at.epoch)}, but history has {len(at.history)} entries, or they are not of the epochs from 1 on"
    if any(later <= before for before, later in pairwise([-1, *steps])) or (steps and steps[-1] > at.step):
        return f"step is {shown(at.step)}, but history has evaluations after the steps {shown(steps)}"
    if any(record["valid"].keys() != at.history[0]["valid"].keys() for record in at.history):
        return "the evaluations of history have metrics of different tasks"
    if (at.batch == 0) != (at.loss_rows == 0):
        return f"batch is {shown(at.batch)}, but loss_rows is {shown(at.loss_rows)}: both are 0, or none"
    if bool(steps) != (best is not None) or (best is None) != (stopping.best is None) or not (best is None or best in steps):
        return f"best_step is {shown(best)} and best is {shown(stopping.best)}, but history has evaluations after the steps {shown(steps)}"
    if stopping.patience < 1 or stopping.waited != sum(step > (best or 0) for step in steps):
        return f"waited is {shown(stopping.waited)} and patience {shown(stopping.patience)} at step {shown(at.step)}, best {shown(best)}"
    return ""
