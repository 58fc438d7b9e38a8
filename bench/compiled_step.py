"""Does ``compile: true`` make a training step faster? ``make compiled-step`` interleaves steps of the default model with and without it.

Whole steps on census-income's train rows: the model, the loss, the backward and AdamW, as in bench/training_step.py.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.data import Batch, BlockLoader, PackedDataset, prepare
from dcrnn_fast.training import load_config
from dcrnn_fast.training.device import autocast
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.compiled import compiled
from dcrnn_fast.training.loop.optim import build_optimiser

from . import interleave, timed_command
from .training_step import Step, stepper

DATA, NAME = "census-income", "compiled_step_cpu.json"
OURS = "compiled"
BATCHES, PRECISIONS = (512, 4096), ("float32", "bfloat16")


def step_of(dataset: PackedDataset, batches: list[Batch], precision: str, *, compile: bool) -> Step:
    """A function that makes one training step of the default configuration."""
    cpu, config = torch.device("cpu"), load_config(None, {"data": DATA})
    model: Any = build_model(describe(config, dataset), device=cpu, backend=config.backend).train()
    forward = compiled(model, batches[0], precision, cpu) if compile else model

    def loss(batch: Batch) -> Tensor:
        with autocast(precision, cpu):
            logits = forward(batch.ids, batch.dense)
        return model.loss(logits.float(), batch.labels, strict_funnel=False)

    return stepper(model, build_optimiser(config, {"model": model}, cpu), loss, cycle(batches))


def measure(seconds: float) -> dict[str, Any]:
    """A row for each batch size and precision."""
    dataset, rows = prepare(DATA), []
    for batch_size in BATCHES:
        batches = list(islice(BlockLoader(dataset.split("train"), batch_size, shuffle=True, seed=0).batches(), 8))
        for precision in PRECISIONS:
            steps = {name: step_of(dataset, batches, precision, compile=name == OURS) for name in (OURS, "eager")}
            times = interleave.rounds(steps, seconds=seconds, minimum=9, stretch=0.0)
            rows.append(timed_command.told({"B": batch_size, "dtype": precision, **interleave.figures(times, [OURS])}))
    return {"rows": rows}


if __name__ == "__main__":
    timed_command.run(__doc__, NAME, DATA, measure, seconds=15.0)
