"""Whole models beside torch-rechub's multi-task models: training steps and requests. It needs torch-rechub.

DCRNN has its default configuration for census-income. torch-rechub's models have the hidden widths of its own examples for that data set:
SharedBottom 117, MMOE 8 experts of 16, PLE 2 experts a task and 1 shared one of 16, AITM 32 and 16, and towers of 8. All have DCRNN's input
layer, embeddings of width 8 and numbers in 32 bins, its dropout, the same batches and AdamW. A step is the model, the loss, the backward
and the optimiser. A request goes from encoded ids and numbers to probabilities: DCRNN's as ``prepare_inference`` computes it, the others'
eager and by ``torch.compile``. All models are interleaved in one process. It is a measurement of time alone: the models differ in size,
nothing is tuned, and no AUC is compared.
"""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from itertools import cycle, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast.data import Batch, BlockLoader, PackedDataset, prepare
from dcrnn_fast.support.defaults import DENSE_BINS, DROPOUT, EMBEDDING_DIM
from dcrnn_fast.training.device import autocast

from .. import interleave
from ..quality.networks import Size
from ..quality.rechub import Library, made
from ..steps import CPU, Step, batches_of, default_model, default_step, stepper

SECONDS = 20.0
DATA, OURS = "census-income", "DCRNN"
SETTING = {
    "dense_bins": DENSE_BINS, "dropout": DROPOUT, "batch_norm": True, "experts": 8, "levels": 1, "own_experts": 2, "shared_experts": 1,
}  # fmt: skip
PEERS = {"SharedBottom": (117,), "MMoE": (16,), "PLE": (16,), "AITM": (32, 16)}
"""The hidden widths of each peer's bottom or experts."""
TOWER = 8
REQUESTS = (1, 512)


def peer(name: str, dataset: PackedDataset) -> Library:
    """A model of torch-rechub behind DCRNN's input layer."""
    torch.manual_seed(0)
    return made(name, dataset.meta, SETTING, Size(EMBEDDING_DIM, 1.0), PEERS[name], TOWER)


def peer_step(name: str, dataset: PackedDataset, batches: list[Batch], precision: str) -> Step:
    """A function that makes one training step of such a model."""
    model = peer(name, dataset)

    def loss(batch: Batch) -> Tensor:
        with autocast(precision, CPU):
            logits = model(batch.ids, batch.dense)
        return model.loss(logits.float(), batch.labels)

    return stepper(model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), loss, cycle(batches))


def flops_per_row(model: nn.Module, batch: Batch) -> int:
    """The floating-point operations of a forward's matrix products; those of our recurrence as its plan counts them."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch.ids, batch.dense)
    plan = getattr(model, "plan", None)
    return int(counter.get_total_flops() / len(batch.ids)) + (plan.cost().flops if plan else 0)


def compared(runs: dict[str, Callable[[], Any]], seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Each one's seconds, and the median and quartiles of our time over it."""
    times = interleave.rounds(runs, seconds=seconds, minimum=9, stretch=0.02)
    figures = interleave.figures(times, [OURS]).items()
    ratios = {name.removeprefix(f"{OURS}/"): figure for name, figure in figures if "/" in name}
    return {name: statistics.median(found) for name, found in times.items()}, ratios


def training(dataset: PackedDataset, size: int, precision: str, seconds: float) -> dict[str, Any]:
    """Rows a second of each model's training steps."""
    batches = batches_of(dataset, size)
    steps = {OURS: default_step(dataset, batches, precision)}
    found, ratios = compared(steps | {name: peer_step(name, dataset, batches, precision) for name in PEERS}, seconds)
    return {"dtype": precision, "B": size, "rows_per_second": {name: round(size / time) for name, time in found.items()}, "ratios": ratios}


def requests(dataset: PackedDataset, size: int, seconds: float) -> dict[str, Any]:
    """Microseconds of a request of each model, in float32."""
    batch = next(BlockLoader(dataset.split("test"), size).batches())
    ids, dense = batch.ids[:size].clone(), None if batch.dense is None else batch.dense[:size].clone()
    prepared, runs = default_model(dataset)[0].eval().prepare_inference(), dict[str, Callable[[], Any]]()
    runs[OURS] = lambda: prepared.predict(ids, dense)
    for name in PEERS:
        model = peer(name, dataset).eval()
        compiled = torch.compile(model, dynamic=False)
        for way, call in ((name, model), (f"{name}, compiled", compiled)):
            runs[way] = lambda call=call: torch.sigmoid(call(ids, dense))
    with torch.inference_mode():
        for run in runs.values():
            run()
        found, ratios = compared(runs, seconds)
    return {"B": size, "microseconds": {name: round(time * 1e6, 1) for name, time in found.items()}, "ratios": ratios}


def run(options: Namespace) -> dict[str, Any]:
    """A row for each batch size and precision of the steps, and for each size of a request."""
    dataset, rows, asked = prepare(DATA), [], []
    batch = batches_of(dataset, options.batch[0])[0]
    flops = {OURS: flops_per_row(default_model(dataset)[0], batch)} | {name: flops_per_row(peer(name, dataset), batch) for name in PEERS}
    print(f"FLOPs a row, forward: {flops}", flush=True)
    for size, precision in product(options.batch, ("float32", "bfloat16")):
        rows.append(training(dataset, size, precision, options.seconds))
        told = ", ".join(f"{name} {speed:,}" for name, speed in rows[-1]["rows_per_second"].items())
        print(f"B = {size}, {precision}, training rows/s: {told}", flush=True)
    for size in REQUESTS:
        asked.append(requests(dataset, size, options.seconds))
        print(f"a request of {size} rows, us: {asked[-1]['microseconds']}", flush=True)
    return {"data": DATA, "flops_per_row": flops, "rows": rows, "requests": asked}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, nargs="*", default=[512, 4096])
