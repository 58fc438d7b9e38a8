"""What a run's further steps depend on, written to a checkpoint and read back: how far it is, when it stops, and tensors by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..folder.tensors import load_tensors
from .optim import Optimisers


@dataclass
class Position:
    """How far a run is. ``epoch`` and ``batch`` count what is done; ``loss_sum`` and ``loss_rows`` belong to the current epoch.

    ``curve`` has steps with their training losses. ``history`` has the evaluations, see :meth:`.progress.Report.evaluation`.
    """

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


@dataclass
class EarlyStopping:
    """Takes one value an evaluation. A tie is not an improvement: of equal evaluations the earliest counts as the best."""

    larger_is_better: bool
    patience: int
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def update(self, value: float, step: int, *, counts: bool = True) -> bool:
        """Take the value after ``step`` steps and say whether it is the best so far; one that does not count is not."""
        better = self.best is None or (counts and (value > self.best if self.larger_is_better else value < self.best))
        if better:
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1
        return better

    @property
    def should_stop(self) -> bool:
        """Whether ``patience`` evaluations have passed without a better value, or three times as many while the start is the best."""
        return self.waited >= self.patience * (1 if self.best_step else 3)


@contextmanager
def mean_in_place(module: nn.Module, mean: dict[str, Tensor], decay: float) -> Iterator[None]:
    """Update the running mean of a module's parameters, and let the module have it for the block; then it has its own again, bit by bit.

    ``mean`` has the values by name, on the CPU, and is empty before the first update. ``decay`` in [0, 1] is the part that the mean before
    keeps in the new one; with 0 there is no mean. A parameter and its mean change places, so that a table needs no more memory on its
    device.
    """
    if not decay:
        mean.clear()
        yield
        return
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    for name, newest in parameters.items():
        on_cpu = newest.to("cpu")
        mean[name] = mean[name].lerp_(on_cpu, 1 - decay) if name in mean else on_cpu.clone()

    def change_places() -> None:
        for name, parameter in parameters.items():
            before = parameter.to("cpu", copy=True)
            parameter.copy_(mean[name])
            mean[name] = before

    change_places()
    try:
        yield
    finally:
        change_places()


def capture(modules: nn.ModuleDict, optimiser: Optimisers, device: torch.device) -> dict[str, Tensor]:
    """Weights, the optimisers' state under their parameters' names, and the states of the random generators."""
    tensors = modules.state_dict() | {f"optimiser.{name}": value for name, value in optimiser.state().items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng.device"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(tensors: Mapping[str, Tensor], modules: nn.ModuleDict, optimiser: Optimisers, device: torch.device, source: Path) -> None:
    """Undo :func:`capture`. Raises :class:`dcrnn_fast.errors.CheckpointError` if the weights belong to another model."""
    for prefix, module in modules.items():
        load_tensors(module, select(tensors, f"{prefix}."), source)
    optimiser.load(select(tensors, "optimiser."))
    torch.set_rng_state(tensors["rng.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng.device"], device)


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
