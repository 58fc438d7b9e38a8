"""What a training step depends on, written to a checkpoint and read back: tensors by name, how far the run is, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from torch import Tensor, nn
from typing_extensions import NotRequired, TypedDict  # pydantic checks no TypedDict of ``typing`` before Python 3.12

from ...errors import CheckpointError, shown
from ...nn.optim import RowWiseAdagrad
from ..folder.checkpoint import damaged, step_of
from ..folder.run_files import first_problem
from ..folder.tensors import load_tensors, total
from .optim import Optimisers, named_parameters

Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]


@dataclass
class EarlyStopping:
    """Takes one value an evaluation. A tie is no improvement: of equal evaluations the earliest counts as the best.

    >>> stopping = EarlyStopping(larger_is_better=True, patience=2)
    >>> [stopping.update(auc, step) for step, auc in ((100, 0.7), (200, 0.8), (300, 0.8), (400, 0.75))]
    [True, True, False, False]
    >>> stopping.best_step, stopping.should_stop
    (200, True)
    """

    larger_is_better: bool
    patience: int
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def update(self, value: float, step: int) -> bool:
        """Take the value after ``step`` steps and say whether it is the best so far."""
        better = self.best is None or (value > self.best if self.larger_is_better else value < self.best)
        if better:
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1
        return better

    @property
    def should_stop(self) -> bool:
        """Whether ``patience`` evaluations have passed without a better value; three times as many while none is better than the start's.

        Logistic regression is a good start, and what the towers add takes a while.
        """
        return self.waited >= self.patience * (1 if self.best_step else 3)


def weight_sums(modules: Mapping[str, nn.Module], known: Mapping[str, float]) -> dict[str, float]:
    """The sum of each parameter in float64, or what is ``known`` of it: equal weights have equal sums, other weights hardly ever."""
    parameters = dict(named_parameters(modules))
    sums = {name: known[name] if name in known else total(value.detach()) for name, value in parameters.items()}
    return {f"the sum of {name}": value for name, value in sums.items()}


def keep(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy a module's tensors into ``weights`` on the CPU, in the memory that earlier ones have there."""
    for name, value in module.state_dict().items():
        if name in weights:
            weights[name].copy_(value)
        else:
            weights[name] = value.to("cpu", copy=True)


def capture(modules: Mapping[str, nn.Module], optimiser: Optimisers, device: torch.device) -> dict[str, Tensor]:
    """Weights, the optimisers' state under their parameters' names, and the states of the random generators."""
    tensors = {f"{prefix}.{name}": value for prefix, module in modules.items() for name, value in module.state_dict().items()}
    tensors |= {f"optimiser.{name}": value for name, value in optimiser_state(modules, optimiser).items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng.device"] = torch.cuda.get_rng_state(device)
    return tensors


def optimiser_state(modules: Mapping[str, nn.Module], optimiser: Optimisers) -> dict[str, Tensor]:
    """The optimisers' state, by ``PARAMETER.KEY``."""
    state = {parameter: values for part in optimiser.parts for parameter, values in part.state.items()}
    return {
        f"{name}.{key}": torch.as_tensor(value)
        for name, parameter in named_parameters(modules)
        for key, value in state.get(parameter, {}).items()
    }


def restore(
    tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimiser: Optimisers, device: torch.device, source: Path
) -> None:
    """Undo :func:`capture`. Raises :class:`CheckpointError` if the tensors belong to another model."""
    for prefix, module in modules.items():
        load_tensors(module, select(tensors, f"{prefix}."), source)
    restore_optimisers(select(tensors, "optimiser."), modules, optimiser, source)
    try:
        torch.set_rng_state(_generator_state(tensors, "rng.cpu", source))
        if device.type == "cuda":
            torch.cuda.set_rng_state(_generator_state(tensors, "rng.device", source), device)
    except CheckpointError:
        raise
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{source} holds no state of a random generator ({error}); start a new run") from error


def restore_optimisers(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimiser: Optimisers, source: Path) -> None:
    """Undo :func:`optimiser_state`. Raises :class:`CheckpointError` for the state of another optimiser."""
    names = {id(parameter): name for name, parameter in named_parameters(modules)}
    for part in optimiser.parts:
        _restore_optimiser(part, tensors, names, source)


def _restore_optimiser(part: torch.optim.Optimizer, tensors: Mapping[str, Tensor], names: Mapping[int, str], source: Path) -> None:
    state = {}
    parameters = (parameter for group in part.param_groups for parameter in group["params"])
    for index, parameter in enumerate(parameters):
        name, shape = names[id(parameter)], parameter.shape
        expected = {"sum": shape[:1]} if isinstance(part, RowWiseAdagrad) else {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
        values = select(tensors, f"{name}.")
        if values and {key: value.shape for key, value in values.items()} != expected:
            raise CheckpointError(f"{source} belongs to another optimiser: {name} has not {type(part).__name__}'s state; start a new run")
        if values:
            state[index] = values
    part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _generator_state(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{source} lacks {name}: the run was started on another kind of device; resume it there")
    return tensors[name]


@with_config(ConfigDict(extra="forbid"))
class TaskMetrics(TypedDict):
    """The metrics of one task, see :func:`dcrnn_fast.training.evaluate.metrics.task_metrics`."""

    rows: Count
    positives: Count
    auc: Number | None
    log_loss: Number | None
    calibration: Number | None
    gauc: NotRequired[Number | None]
    weighted_auc: NotRequired[Number | None]
    weighted_log_loss: NotRequired[Number | None]
    role: NotRequired[Literal["CTR", "CTCVR", "CVR"]]
    shifted_log_loss: NotRequired[Number | None]
    intercept: NotRequired[Number]
    intercept_error: NotRequired[Number]


@with_config(ConfigDict(extra="forbid"))
class EvaluationRecord(TypedDict):
    """One evaluation on the validation rows, after ``step`` steps, in or at the end of ``epoch`` (from 1); ``valid`` holds the metrics.

    The evaluation before the first step has step 0, epoch 0 and no ``train_loss``.
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
        before = state.get("before", [0, 1])
        if not isinstance(before, list) or len(before) != 2 or not all(type(number) is int and number >= 0 for number in before):
            raise TypeError(f"before is {shown(state['before'])}")
        if not isinstance(state.get("start", {}), dict):
            raise TypeError(f"start is {shown(state['start'])}")
        position = TypeAdapter(Position).validate_python(state["position"])
        stopping = TypeAdapter(EarlyStopping).validate_python(state["stopping"])
        problem = _impossible(position, stopping, step_of(folder))
        if not problem:
            return position, stopping
    except ValidationError as error:
        problem = first_problem(error, "the position")
    except (KeyError, TypeError) as error:
        problem = f"it lacks an entry or has another type of it: {error}"
    raise damaged(folder, folder / "state.json", f"holds no position of a run: {problem}")


def _impossible(at: Position, stopping: EarlyStopping, step: int | None) -> str:
    """A contradiction in the position, in words; empty if there is none."""
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
