"""How much of a training step of DCRNN is outside the recurrence?

The model has the default configuration for census-income, with the full cell and with rank 32, in float32 and in bfloat16 autocast. Whole
steps alternate with the forward and the backward of the recurrence alone, on the same batches.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from itertools import cycle, product
from typing import Any

import torch

from dcrnn_fast.data import Batch, PackedDataset, prepare
from dcrnn_fast.training.device import autocast

from ..interleave import told
from ..steps import CPU, batches_of, default_model, default_step

SECONDS = 60.0
DATA = "census-income"
DTYPES, RANKS = ("float32", "bfloat16"), (None, 32)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its milliseconds."""
    begin = time.perf_counter()
    found = run()
    return found, (time.perf_counter() - begin) * 1e3


def rounds_of(dtype: str, rank: int | None, dataset: PackedDataset, batches: Sequence[Batch]) -> Callable[[], dict[str, float]]:
    """A function that gives the milliseconds of a whole step and of the recurrence, after a step that warms the caches up."""
    keys = {"model.rank": rank}
    step, model, own = default_step(dataset, batches, dtype, keys), default_model(dataset, keys)[0].train(), cycle(batches)

    def measure() -> dict[str, float]:
        step()
        whole, batch = timed(step)[1], next(own)
        with autocast(dtype, CPU):
            x0 = model.features(batch.ids, batch.dense).x0.detach().requires_grad_()
            state, forward = timed(lambda: model.cross(x0))
        gradient = torch.randn_like(state)
        backward = timed(lambda: state.backward(gradient))[1]
        model.zero_grad()
        return {"whole": whole, "recurrence, forward": forward, "recurrence, backward": backward}

    return measure


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each, and of the whole without the recurrence."""
    found = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    found["outside the recurrence"] = 2 * found["whole"] - sum(found.values())
    return {name: round(value, 4) for name, value in found.items()}


def run(options: Namespace) -> dict[str, Any]:
    """A row for each dtype and rank. All of them take turns."""
    dataset = prepare(DATA)
    batches = batches_of(dataset, options.batch)
    runs = {case: rounds_of(*case, dataset, batches) for case in product(DTYPES, RANKS)}
    times: dict[tuple[str, int | None], list[dict[str, float]]] = {case: [] for case in runs}
    start, turn = time.perf_counter(), 0
    while turn < 12 or time.perf_counter() - start < options.seconds:
        for case, measure in runs.items():
            times[case].append(measure())
        turn += 1
    rows = [
        told({"rank": rank, "dtype": dtype, "B": options.batch, "rounds": turn - 3, "ms": medians(times[dtype, rank][3:])})
        for dtype, rank in runs
    ]
    return {"data": DATA, "steps": rows}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=512, help="rows of a training step")
