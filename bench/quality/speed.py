"""What a model costs: parameters, FLOPs a row, training and inference rows a second, and the latency of a request of one row.

The networks have random weights and the chosen setting: time does not depend on the weights. All models of a data set are interleaved in
one process, round by round, with PyTorch's own number of threads. Trees and logistic regression are not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import interleave
from bench.steps import batches_of, stepper
from dcrnn_fast.data import Batch, BlockLoader, PackedDataset

from .models import MODELS, Subject
from .networks import SIZES, Setting
from .protocol import Protocol, parameter_groups, start_embeddings

DTYPES = ("float32", "bfloat16")
INFERENCE_ROWS = 4096
COLUMNS = {
    "training_rows_per_second": "training rows/s",
    "inference_rows_per_second": "inference rows/s",
    "request_microseconds": "request, µs",
}


def flops(model: nn.Module, dataset: PackedDataset, rows: int = 64) -> float:
    """Floating-point operations of the forward pass's matrix products, a row; a multiply and an add count as two.

    Our operators are counted through plain PyTorch, which does the same products: the counter does not look into C++.
    """
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    batch = next(BlockLoader(dataset.split("train"), rows).batches())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(batch.ids, batch.dense)
    return counter.get_total_flops() / len(batch.labels)


def _build(subject: Subject, setting: Setting, dataset: PackedDataset) -> Any:
    build = MODELS[subject.model].build
    assert build is not None
    torch.manual_seed(0)
    model = build(dataset.meta, setting, SIZES[subject.size])
    start_embeddings(model, setting["embedding_init_std"])
    return model


def training(model: Any, setting: Setting, dataset: PackedDataset, rows: int, *, low: bool | int) -> Callable[[], None]:
    """A function that makes one training step. Parameters, loss and optimiser are float32; ``low``: the forward in bfloat16 autocast."""
    optimiser = torch.optim.AdamW(parameter_groups({"model": model}, setting["weight_decay"]), lr=setting["lr"], fused=True)

    def loss(batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(low)):
            logits = model(batch.ids, batch.dense)
        return model.loss(logits.float(), batch.labels)

    return stepper(model, optimiser, loss, cycle(batches_of(dataset, rows)))


def inference(model: Any, dataset: PackedDataset, rows: int, *, low: bool | int) -> Callable[[], None]:
    """A function that predicts ``rows`` rows."""
    batch = next(BlockLoader(dataset.split("test"), rows).batches())
    model.eval()

    def predict() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bool(low)):
            model(batch.ids, batch.dense)

    return predict


def measure(chosen: Mapping[Subject, Setting], dataset: PackedDataset, protocol: Protocol, seconds: float) -> dict[Subject, dict[str, Any]]:
    """For each subject of one data set: FLOPs a row, and by dtype rows a second in training and inference, and a request's time."""
    networks = [subject for subject in chosen if MODELS[subject.model].build]
    found: dict[Subject, dict[str, Any]] = {
        subject: {"flops": round(flops(_build(subject, chosen[subject], dataset), dataset))} for subject in networks
    }
    test = dataset.split("test")
    for low, dtype in enumerate(DTYPES):
        for column, count in zip(COLUMNS, (protocol.batch_size, min(INFERENCE_ROWS, len(test)), 1), strict=True):
            steps: dict[Subject, Callable[[], object]] = {}
            for subject in networks:
                model, setting = _build(subject, chosen[subject], dataset), chosen[subject]
                train = column == "training_rows_per_second"
                steps[subject] = training(model, setting, dataset, count, low=low) if train else inference(model, dataset, count, low=low)
            print(f"{dataset.meta.name}: measuring {COLUMNS[column]} in {dtype}", flush=True)
            for subject, times in (interleave.rounds(steps, seconds=seconds, minimum=3, stretch=0.01) if steps else {}).items():
                median = statistics.median(times)
                value = round(median * 1e6, 1) if count == 1 else round(count / median)
                found.setdefault(subject, {}).setdefault(dtype, {})[column] = value
    return found
