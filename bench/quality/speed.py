"""What a model costs: parameters, FLOPs a row, training and inference rows a second, and the latency of a request of one row.

The networks have random weights and the chosen setting: time does not depend on the weights. All models of a data set are interleaved in
one process, round by round, with PyTorch's own number of threads. The trees are fitted first, since their time depends on their number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import interleave
from bench.steps import batches_of, stepper
from dcrnn_fast.data import Batch, BlockLoader, PackedDataset

from .models import AGAINST, MODELS
from .networks import SIZES, Setting
from .protocol import Protocol, parameter_groups, start_embeddings
from .search import TUNING_SEED
from .trees import KINDS, Trees
from .work import Subject

DTYPES = ("float32", "bfloat16")
INFERENCE_ROWS = 4096
TASKS = {"training": "training_rows_per_second", "inference": "inference_rows_per_second", "request": "request_microseconds"}


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


def training(model: Any, setting: Setting, dataset: PackedDataset, rows: int, *, low: bool) -> Callable[[], None]:
    """A function that makes one training step. Parameters, loss and optimiser are float32; ``low``: the forward in bfloat16 autocast."""
    optimiser = torch.optim.AdamW(parameter_groups({"model": model}, setting["weight_decay"]), lr=setting["lr"], fused=True)

    def loss(batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(batch.ids, batch.dense)
        return model.loss(logits.float(), batch.labels)

    return stepper(model, optimiser, loss, cycle(batches_of(dataset, rows)))


def inference(model: Any, dataset: PackedDataset, rows: int, *, low: bool) -> Callable[[], None]:
    """A function that predicts ``rows`` rows."""
    batch = next(BlockLoader(dataset.split("test"), rows).batches())
    model.eval()

    def predict() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            model(batch.ids, batch.dense)

    return predict


def measure(
    chosen: Mapping[Subject, Setting], dataset: PackedDataset, protocol: Protocol, seconds: float, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each subject of one data set: parameters, FLOPs, and by dtype the three speeds, with the ratio of its times to ours."""
    rows = {s: {**s._asdict(), "parameters": None, "flops": None} for s in chosen}
    networks = [s for s in chosen if MODELS[s.model].build]
    for subject in networks:
        model = _build(subject, chosen[subject], dataset)
        rows[subject] |= {"parameters": sum(p.numel() for p in model.parameters()), "flops": round(flops(model, dataset))}
    trees = {s: Trees(s.model, dataset, chosen[s], TUNING_SEED, protocol.max_rounds) for s in chosen if s.model in KINDS}
    for dtype in DTYPES:
        low = dtype == "bfloat16"
        for task, column in TASKS.items():
            count = {"training": protocol.batch_size, "inference": min(INFERENCE_ROWS, len(dataset.split("test"))), "request": 1}[task]
            steps: dict[Subject, Callable[[], object]] = {}
            for subject in networks:
                model, setting = _build(subject, chosen[subject], dataset), chosen[subject]
                is_training = task == "training"
                steps[subject] = (
                    training(model, setting, dataset, count, low=low) if is_training else inference(model, dataset, count, low=low)
                )
            if task != "training" and not low:
                steps |= {subject: fitted.caller(dataset.split("test"), count) for subject, fitted in trees.items()}
            tell(f"{dataset.meta.name}: measuring {task} in {dtype}")
            _add(rows, interleave.rounds(steps, seconds=seconds, minimum=3, stretch=0.01) if steps else {}, dtype, task, column, count)
    return list(rows.values())


def _add(
    rows: Mapping[Subject, dict[str, Any]], times: Mapping[Subject, Sequence[float]], dtype: str, task: str, column: str, count: int
) -> None:
    for subject, values in times.items():
        median = statistics.median(values)
        found: dict[str, Any] = {column: round(median * 1e6, 1) if task == "request" else round(count / median)}
        ours = times.get(subject._replace(model=AGAINST))
        if ours and subject.model != AGAINST:
            low, middle, high = statistics.quantiles([a / b for a, b in zip(values, ours, strict=True)], n=4, method="inclusive")
            found[f"{task}_time_over_ours"] = [round(value, 3) for value in (middle, low, high)]
        rows[subject].setdefault(dtype, {}).update(found)
