"""What takes how long in a training step of DCRNN?

The model has the default configuration for census-income, with the full cell and with rank 32, in float32 and in bfloat16 autocast. A step
is cut into parts: each takes the results of the one before as inputs of a graph of its own, so that its forward and its backward have
clocks of their own, and together they are the step. Steps by part and whole steps alternate.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast.data import Batch, PackedDataset, prepare
from dcrnn_fast.training.device import autocast
from dcrnn_fast.training.loop.optim import build_optimiser

from ..steps import CPU, batches_of, default_model
from .measure import told

FILE, SECONDS = "step_parts_cpu.json", 60.0
DATA = "census-income"
RANKS = (None, 32)
DTYPES = ("float32", "bfloat16")
WHOLE, RECURRENCE = "whole", "recurrence"


class Clocks:
    """Runs parts forward, and then backward in the opposite order, and adds up the seconds of each by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._done: list[tuple[str, tuple[Tensor, ...], Tensor]] = []

    def time(self, name: str, run: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        found = run()
        self.seconds[name] += time.perf_counter() - begin
        return found

    def forward(self, name: str, run: Callable[..., Tensor], *before: Tensor) -> Tensor:
        """``run(*before)``, whose inputs are the leaves of a new graph."""
        leaves = tuple(value.detach().requires_grad_(value.requires_grad) for value in before)
        after = self.time(f"{name}, forward", lambda: run(*leaves))
        self._done.append((name, leaves, after))
        return after

    def backward(self) -> Tensor | None:
        """The backward of every part, from the last one's result, a scalar; and the gradient of what the first part was given."""
        grad = None
        for name, leaves, after in reversed(self._done):
            self.time(f"{name}, backward", lambda after=after, grad=grad: after.backward(grad))
            grad = leaves[0].grad if leaves else None
        self._done.clear()
        return grad


class Steps:
    """Training steps of one model, whole or by part, on batches that repeat."""

    def __init__(self, rank: int | None, precision: str, dataset: PackedDataset, batches: Iterator[Batch]) -> None:
        self.model, self.config = default_model(dataset, {"model.rank": rank})
        self.optimiser = build_optimiser(self.config, nn.ModuleDict({"model": self.model}), CPU)
        self.batches, self.precision = batches, precision

    def autocast(self) -> torch.autocast:
        return autocast(self.precision, CPU)

    def update(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.model.loss(logits.float(), labels, strict_funnel=self.config.loss.strict_funnel)

    def whole(self, batch: Batch) -> Tensor:
        """Forward and backward of a batch."""
        with self.autocast():
            logits = self.model(batch.ids, batch.dense)
        loss = self.loss(logits, batch.labels)
        loss.backward()
        return loss

    def by_part(self, batch: Batch, clocks: Clocks) -> Tensor:
        """The same by part."""
        model = self.model
        with self.autocast():
            x0, term, _ = clocks.time("features, forward", lambda: model.features(batch.ids, batch.dense))
            given = term.detach().requires_grad_()
            states = clocks.forward(RECURRENCE, model.cross, x0)
            z = clocks.forward("towers", lambda h: model.towers(h, given), states)
        loss = clocks.forward("loss", lambda z: self.loss(model.event_logits(z), batch.labels), z)
        gradients = [clocks.backward(), given.grad]
        clocks.time("features, backward", lambda: torch.autograd.backward([x0, term], gradients))
        return loss

    def round(self) -> dict[str, float]:
        """Seconds of a whole step, and of each part of another one. A step before them warms the caches up."""
        self.model.train()
        self.whole(next(self.batches))
        self.update()
        clocks, batch = Clocks(), next(self.batches)
        clocks.time(WHOLE, lambda: (self.whole(batch), self.update()))
        batch = next(self.batches)
        self.by_part(batch, clocks)
        clocks.time("optimiser", self.update)
        return clocks.seconds


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each clock in milliseconds, and of the whole without the recurrence."""
    found = {name: statistics.median(seconds[name] for seconds in rounds) * 1e3 for name in rounds[0]}
    recurrence = sum(value for name, value in found.items() if name.startswith(RECURRENCE))
    found["outside the recurrence"] = found[WHOLE] - recurrence
    return {name: round(value, 4) for name, value in found.items()}


def measure(dataset: PackedDataset, batch_size: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each rank and dtype. All of them take turns."""
    batches = batches_of(dataset, batch_size)
    cases = [{"dtype": dtype, "rank": rank} for dtype in DTYPES for rank in RANKS]
    models = [Steps(case["rank"], case["dtype"], dataset, cycle(batches)) for case in cases]
    times: list[list[dict[str, float]]] = [[] for _ in cases]
    for _ in range(3):
        for model in models:
            model.round()
    start = time.perf_counter()
    while len(times[0]) < 9 or time.perf_counter() - start < seconds:
        for of_case, model in zip(times, models, strict=True):
            of_case.append(model.round())
    return [{**case, "B": batch_size, "rounds": len(of_case), "ms": medians(of_case)} for case, of_case in zip(cases, times, strict=True)]


def run(options: Namespace) -> dict[str, Any]:
    """Measure and print."""
    return {"data": DATA, "steps": [told(row) for row in measure(prepare(DATA), options.batch, options.seconds)]}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=512, help="rows of a training step")
