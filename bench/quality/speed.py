"""What a network costs: training rows a second, and the latency of a request of one row. Trees and logistic regression are not measured.

The networks have random weights and the chosen setting: time does not depend on the weights. All models of a data set are interleaved in
one process, round by round, with PyTorch's own number of threads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from bench import interleave
from bench.steps import batches_of, stepper
from dcrnn_fast.data import Batch, BlockLoader, PackedDataset

from .models import MODELS, Subject
from .networks import SIZES, Setting
from .protocol import parameter_groups, start_embeddings

DTYPES = ("float32", "bfloat16")
TRAINING, REQUEST = "training_rows_per_second", "request_microseconds"


def caller(subject: Subject, setting: Setting, dataset: PackedDataset, rows: int, low: bool) -> Callable[[], object]:
    """A function that makes one training step of so many rows, or for one row predicts it. Parameters, loss and optimiser are float32;
    ``low``: the forward is in bfloat16 autocast.
    """
    build: Any = MODELS[subject.model].build
    torch.manual_seed(0)
    model = build(dataset.meta, setting, SIZES[subject.size])
    start_embeddings(model, setting["embedding_init_std"], dataset.split("train").dense)

    def logits(batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            return model(batch.ids, batch.dense)

    if rows == 1:
        model.eval()
        batch = next(BlockLoader(dataset.split("test"), 1).batches())
        return torch.no_grad()(lambda: logits(batch))
    optimiser = torch.optim.AdamW(parameter_groups({"model": model}, setting["weight_decay"]), lr=setting["lr"], fused=True)
    loss = lambda batch: model.loss(logits(batch).float(), batch.labels)  # noqa: E731
    return stepper(model, optimiser, loss, cycle(batches_of(dataset, rows)))


def measure(chosen: Mapping[Subject, Setting], dataset: PackedDataset, rows: int, seconds: float) -> dict[Subject, dict[str, Any]]:
    """By subject and dtype, rows a second in training steps of so many rows, and microseconds of a request."""
    found: dict[Subject, dict[str, Any]] = {subject: {} for subject in chosen if MODELS[subject.model].build}
    for dtype in DTYPES if found else ():
        for name, count in ((TRAINING, rows), (REQUEST, 1)):
            print(f"{dataset.meta.name}: measuring {name} in {dtype}", flush=True)
            calls = {subject: caller(subject, chosen[subject], dataset, count, dtype == "bfloat16") for subject in found}
            for subject, times in interleave.rounds(calls, seconds=seconds, minimum=3, stretch=0.01).items():
                median = statistics.median(times)
                value = round(median * 1e6, 1) if name == REQUEST else round(count / median)
                found[subject].setdefault(dtype, {})[name] = value
    return found
