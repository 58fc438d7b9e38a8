"""Training steps of the default configuration, to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast.data import Batch, BlockLoader, PackedDataset
from dcrnn_fast.training import RunConfig, load_config
from dcrnn_fast.training.device import autocast
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.gradient import compiled
from dcrnn_fast.training.loop.optim import build_optimiser

CPU = torch.device("cpu")
Step = Callable[[], None]


def default_model(dataset: PackedDataset, keys: Mapping[str, Any] | None = None, backend: str = "auto") -> tuple[Any, RunConfig]:
    """A model with the default configuration for a data set but for some keys, and with random weights that are always the same."""
    config = load_config(None, {"data": dataset.meta.name, **(keys or {})})
    torch.manual_seed(0)
    return build_model(describe(config, dataset), device=CPU, backend=backend), config


def batches_of(dataset: PackedDataset, size: int) -> list[Batch]:
    """All train rows in batches of this size, or the one batch that there is.

    Of a few batches that repeat, a model learns the rows by heart within hundreds of steps: its gradients become denormal numbers, which
    take the CPU several times as long.
    """
    batches = list(BlockLoader(dataset.split("train"), size, shuffle=True, seed=0).batches())
    return [batch for batch in batches if len(batch.ids) == size] or batches


def stepper(model: nn.Module, optimiser: Any, loss: Callable[[Batch], Tensor], batches: Iterator[Batch]) -> Step:
    """A function that makes one training step."""

    def step() -> None:
        optimiser.zero_grad()
        loss(next(batches)).backward()
        optimiser.step()

    model.train()
    return step


def default_step(
    dataset: PackedDataset, batches: Sequence[Batch], precision: str, keys: Mapping[str, Any] | None = None, *, compile: bool = False
) -> Step:
    """A function that makes one training step of :func:`default_model`; the batches repeat."""
    model, config = default_model(dataset, keys)
    model.train()
    forward = compiled(model, batches[0], precision, CPU) if compile else model

    def loss(batch: Batch) -> Tensor:
        with autocast(precision, CPU):
            logits = forward(batch.ids, batch.dense)
        return model.loss(logits.float(), batch.labels, strict_funnel=config.loss.strict_funnel)

    return stepper(model, build_optimiser(config, nn.ModuleDict({"model": model}), CPU), loss, cycle(batches))
