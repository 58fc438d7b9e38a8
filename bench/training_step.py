"""Whole training steps beside torch-rechub's multi-task models: ``python -m bench.training_step``, with torch-rechub installed.

Every model has embeddings of width 8, the same batches of census-income's train rows, dropout 0.3 and AdamW. torch-rechub's MMOE has 8
experts, its PLE 2 experts a task and 1 shared one. Their hidden widths are once those of its examples (16, towers of 8), and once 128 and
64 (towers of 64 and 32, as ours). A step is the model, the loss, the backward and AdamW; all models are interleaved in one process. It is a
measurement of time alone: nothing is tuned, and no AUC is compared.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast.data import Batch, BlockLoader, PackedDataset, prepare
from dcrnn_fast.training import load_config
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.optim import build_optimiser

from . import interleave, machine, results

DATA, NAME = "census-income", "training_step_cpu.json"
WIDTHS = {"example's widths": ((16,), (8,)), "128-64": ((128, 64), (64, 32))}
OURS = {"DCRNN, full cell": None, "DCRNN, rank 32": 32}


Step = Callable[[], None]


def stepper(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Callable[[Batch], Tensor], batches: Iterator[Batch]) -> Step:
    """A function that makes one training step."""

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(next(batches)).backward()
        optimiser.step()

    model.train()
    return step


def ours(rank: int | None, dataset: PackedDataset, batches: Iterator[Batch], *, low: bool) -> Step:
    config = load_config(None, {"data": DATA, "model.rank": rank, "model.dense_bins": 0})
    model: Any = build_model(describe(config, dataset), device=torch.device("cpu"), backend=config.backend)

    def loss(batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(batch.ids, batch.dense)
        return model.loss(logits.float(), batch.labels, strict_funnel=False)

    return stepper(model, build_optimiser(config, {"model": model}, torch.device("cpu")), loss, batches)


def peer(name: str, widths: tuple[Sequence[int], Sequence[int]], dataset: PackedDataset, batches: Iterator[Batch], *, low: bool) -> Step:
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
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            probabilities = model(columns)
        return nn.functional.binary_cross_entropy(probabilities.float().clamp(1e-6, 1 - 1e-6), batch.labels)

    return stepper(model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), loss, batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a dtype and batch size is measured")
    parser.add_argument("--batch", type=int, nargs="*", default=[512, 4096])
    arguments = parser.parse_args()
    dataset, rows = prepare(DATA), []
    for batch_size in arguments.batch:
        loader = BlockLoader(dataset.split("train"), batch_size, shuffle=True, seed=0)
        batches = list(islice(loader.batches(), 8))
        for dtype in ("float32", "bfloat16"):
            low = dtype == "bfloat16"
            steps = {name: ours(rank, dataset, cycle(batches), low=low) for name, rank in OURS.items()}
            for name in ("MMOE", "PLE"):
                for label, widths in WIDTHS.items():
                    steps[f"{name}, {label}"] = peer(name, widths, dataset, cycle(batches), low=low)
            times = interleave.rounds(steps, seconds=arguments.seconds, minimum=9, stretch=0.02)
            speeds = {name: round(batch_size / statistics.median(of)) for name, of in times.items()}
            figures = interleave.figures(times, ["DCRNN, rank 32"]).items()
            found = {name.removeprefix("DCRNN, rank 32/"): figure for name, figure in figures if "/" in name}
            rows.append({"dtype": dtype, "B": batch_size, "rows_per_second": speeds, "ratios": found})
            told = ", ".join(f"{name} {speed:,}" for name, speed in speeds.items())
            print(f"B = {batch_size}, {dtype}, training rows/s: {told}", flush=True)
    path = results.COMMITTED / NAME
    results.write(path, {"machine": machine.description(), "data": DATA, "rows": rows})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
