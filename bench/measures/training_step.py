"""Whole training steps beside torch-rechub's multi-task models. It needs torch-rechub.

Every model has embeddings of width 8, the same batches of census-income's train rows, dropout 0.3 and AdamW. torch-rechub's MMOE has 8
experts, its PLE 2 experts a task and 1 shared one. Their hidden widths are once those of its examples (16, towers of 8), and once 128 and
64 (towers of 64 and 32, as ours). A step is the model, the loss, the backward and AdamW; all models are interleaved in one process. It is a
measurement of time alone: nothing is tuned, and no AUC is compared.
"""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast.data import Batch, PackedDataset, prepare
from dcrnn_fast.training.device import autocast

from .. import interleave
from ..steps import CPU, Step, batches_of, default_step, stepper
from .measure import Measure

DATA = "census-income"
Widths = tuple[Sequence[int], Sequence[int]]
WIDTHS: dict[str, Widths] = {"example's widths": ((16,), (8,)), "128-64": ((128, 64), (64, 32))}
OURS = {"DCRNN, full cell": None, "DCRNN, rank 32": 32}


def peer(name: str, widths: Widths, dataset: PackedDataset, batches: Sequence[Batch], precision: str) -> Step:
    """A function that makes one training step of a model of torch-rechub."""
    from torch_rechub.basic.features import DenseFeature, SparseFeature
    from torch_rechub.models.multi_task.mmoe import MMOE
    from torch_rechub.models.multi_task.ple import PLE

    tasks, sizes, dense = len(dataset.meta.tasks), list(dataset.meta.fields.values()), len(dataset.meta.dense)
    features = [SparseFeature(f"id{i}", size, 8) for i, size in enumerate(sizes)] + [DenseFeature(f"dense{i}") for i in range(dense)]
    experts, towers = ({"dims": list(dims), "dropout": 0.3} for dims in widths)
    kinds = ["classification"] * tasks
    if name == "MMOE":
        model = MMOE(features, kinds, 8, experts, [dict(towers) for _ in kinds])
    else:
        model = PLE(features, kinds, 1, 2, 1, experts, [dict(towers) for _ in kinds])

    def loss(batch: Batch) -> Tensor:
        assert batch.dense is not None
        columns = {f"id{i}": batch.ids[:, i] for i in range(len(sizes))} | {f"dense{i}": batch.dense[:, i] for i in range(dense)}
        with autocast(precision, CPU):
            probabilities = model(columns)
        return nn.functional.binary_cross_entropy(probabilities.float().clamp(1e-6, 1 - 1e-6), batch.labels)

    return stepper(model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), loss, cycle(batches))


def run(options: Namespace) -> dict[str, Any]:
    """A row for each batch size and precision."""
    dataset, rows = prepare(DATA), []
    for size, precision in product(options.batch, ("float32", "bfloat16")):
        batches = batches_of(dataset, size)
        steps = {
            name: default_step(dataset, batches, precision, {"model.rank": rank, "model.dense_bins": 0}) for name, rank in OURS.items()
        }
        for name, (label, widths) in product(("MMOE", "PLE"), WIDTHS.items()):
            steps[f"{name}, {label}"] = peer(name, widths, dataset, batches, precision)
        times = interleave.rounds(steps, seconds=options.seconds, minimum=9, stretch=0.02)
        speeds = {name: round(size / statistics.median(found)) for name, found in times.items()}
        figures = interleave.figures(times, ["DCRNN, rank 32"]).items()
        ratios = {name.removeprefix("DCRNN, rank 32/"): figure for name, figure in figures if "/" in name}
        rows.append({"dtype": precision, "B": size, "rows_per_second": speeds, "ratios": ratios})
        told = ", ".join(f"{name} {speed:,}" for name, speed in speeds.items())
        print(f"B = {size}, {precision}, training rows/s: {told}", flush=True)
    return {"data": DATA, "rows": rows}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, nargs="*", default=[512, 4096])


MEASURE = Measure("training_step", run, "training_step_cpu.json", seconds=20.0, add_options=add_options)
