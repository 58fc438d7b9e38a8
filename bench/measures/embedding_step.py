"""What does a training step cost as the embedding table grows?

A step is the model, the loss, the backward and the optimiser at B = 4096, with one thread: the default configuration, but ten fields and
embeddings of width 16. The ids are uniform, so nearly every id of a batch is another row: the most work that a batch can give. The
candidates are the trainer's two settings of ``model.embedding``, and PyTorch's own optimisers for sparse gradients in place of ours, all
interleaved in one process. The time is the CPU time of the process, so that other processes disturb it less. The memory is what building
the model and three steps add to the process at their peak: table, gradients, the optimiser's state and the activations. Needs Linux.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import dcrnn_fast
from dcrnn_fast.training import load_config
from dcrnn_fast.training.device import autocast, select_precision
from dcrnn_fast.training.folder.checkpoint import save_checkpoint
from dcrnn_fast.training.loop.optim import Optimisers, build_optimiser
from dcrnn_fast.training.loop.state import capture

from ..interleave import compared
from ..machine import memory_growth
from ..steps import CPU, stepper

SECONDS, THREADS = 8.0, 1
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
FIELDS, WIDTH, BATCH = 10, 16, 4096
PEERS: dict[str, Any] = {"SparseAdam": torch.optim.SparseAdam, "Adagrad": torch.optim.Adagrad}
LARGE = 1_000_000
"""Rows from which the memory is measured. Below, it is that of the activations."""
CANDIDATES = ("dense", "sparse", *PEERS)


def trained(candidate: str, rows: int) -> tuple[dcrnn_fast.DCRNN, Optimisers, Callable[[], None]]:
    """A model whose table has ``rows`` rows, its optimisers, and a function that makes one training step. Eight batches repeat."""
    torch.manual_seed(0)
    embedding = "dense" if candidate == "dense" else "sparse"
    config = load_config(None, {"data": "none", "model.embedding": embedding, "model.embedding_dim": WIDTH})
    model = dcrnn_fast.DCRNN([rows // FIELDS] * FIELDS, embedding_dim=WIDTH, sparse=embedding == "sparse").train()
    optimiser, precision = build_optimiser(config, nn.ModuleDict({"model": model}), CPU), select_precision(config.precision, CPU)
    if candidate in PEERS:
        optimiser = Optimisers(optimiser.parts[0], PEERS[candidate]([model.features.embedding.weight], lr=1e-3))
    labels = torch.randint(0, 2, (BATCH, 1)).float().expand(-1, 2).contiguous()
    batches = cycle([torch.randint(0, rows // FIELDS, (BATCH, FIELDS)) for _ in range(8)])

    def loss(ids: Tensor) -> Tensor:
        with autocast(precision, CPU):
            logits = model(ids)
        return model.loss(logits.float(), labels)

    return model, optimiser, stepper(model, optimiser, loss, batches)


def peak(candidate: str, rows: int) -> int:
    """The bytes that building the model and three steps add to the process at their peak."""
    grown, (_, _, step) = memory_growth(), trained(candidate, rows)
    for _ in range(3):
        step()
    return grown()


def checkpoint(rows: int) -> dict[str, int]:
    """Milliseconds of CPU time, and MB that are added to the process at the peak, of writing a checkpoint with the best weights."""
    model, optimiser, step = trained("sparse", rows)
    step()
    best = {f"best.{name}": value.clone() for name, value in model.state_dict().items()}
    with TemporaryDirectory() as folder:
        grown, start = memory_growth(), time.process_time()
        save_checkpoint(Path(folder), 1, capture(nn.ModuleDict({"model": model}), optimiser, CPU) | best, {})
        spent, most = time.process_time() - start, grown()
    return {"checkpoint, ms": round(spent * 1e3), "checkpoint, MB": round(most / 1e6)}


def measure(rows: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of CPU time a step of each candidate, the ratios of ours to the others, and the peaks in MB."""
    peaks = {f"{name}, MB": round(peak(name, rows) / 1e6) for name in CANDIDATES if rows >= LARGE}
    steps = {name: trained(name, rows)[2] for name in CANDIDATES}
    row = compared({"rows": rows}, steps, ["sparse"], seconds=seconds, minimum=7, clock=time.process_time)
    del steps
    return {**row, **peaks, **(checkpoint(rows) if rows >= LARGE else {})}


def run(options: Namespace) -> dict[str, Any]:
    """A row for each size of the table."""
    case = {"fields": FIELDS, "width": WIDTH, "B": BATCH}
    return {"case": case, "rows": [measure(rows, options.seconds) for rows in options.rows]}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="sizes of the table")
