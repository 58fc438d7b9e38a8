"""What does a training step cost as the embedding table grows? ``make embedding-step`` measures it.

A step is the model, the loss, the backward and the optimiser at B = 4096, with one thread: the default configuration, but ten fields and
embeddings of width 16. The ids are uniform, so nearly every id of a batch is another row: the most work that a batch can give. The
candidates are the trainer's two settings of ``model.embedding``, and PyTorch's own optimisers for sparse gradients in place of ours, all
interleaved in one process. The time is the CPU time of the process, so that other processes disturb it less. The memory is what building
the model and three steps add to the process at their peak: table, gradients, the optimiser's state and the activations. Needs Linux.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import dcrnn_fast
from dcrnn_fast.training import load_config
from dcrnn_fast.training.device import autocast, select_precision
from dcrnn_fast.training.folder.checkpoint import save_checkpoint
from dcrnn_fast.training.loop.optim import Optimisers, build_optimiser
from dcrnn_fast.training.loop.state import capture

from . import interleave, machine, results
from .resident import memory_now, memory_peak

PATH = results.COMMITTED / "embedding_step_cpu.json"
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
FIELDS, WIDTH, BATCH = 10, 16, 4096
PEERS: dict[str, Any] = {"SparseAdam": torch.optim.SparseAdam, "Adagrad": torch.optim.Adagrad}
LARGE = 1_000_000
"""Rows from which the memory is measured. Below, it is that of the activations."""
CANDIDATES = ("dense", "sparse", *PEERS)
CPU = torch.device("cpu")


def trained(candidate: str, rows: int) -> tuple[dcrnn_fast.DCRNN, Optimisers, Callable[[], None]]:
    """A model whose table has ``rows`` rows, its optimisers, and a function that makes one training step. Eight batches repeat."""
    torch.manual_seed(0)
    embedding = "dense" if candidate == "dense" else "sparse"
    config = load_config(None, {"data": "none", "model.embedding": embedding, "model.embedding_dim": WIDTH})
    of_model = config.model
    model = dcrnn_fast.DCRNN(
        [rows // FIELDS] * FIELDS, embedding_dim=WIDTH, steps=of_model.steps, rank=of_model.rank, tower_dims=of_model.tower_dims,
        dropout=of_model.dropout, sparse=embedding == "sparse",
    ).train()  # fmt: skip
    optimiser, precision = build_optimiser(config, {"model": model}, CPU), select_precision(config.precision, CPU)
    if candidate in PEERS:
        optimiser = Optimisers(optimiser.parts[0], PEERS[candidate]([model.embedding.weight], lr=1e-3))
    labels = torch.randint(0, 2, (BATCH, 1)).float().expand(-1, 2).contiguous()
    batches = cycle([torch.randint(0, rows // FIELDS, (BATCH, FIELDS)) for _ in range(8)])

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            logits = model(next(batches))
        model.loss(logits.float(), labels).backward()
        optimiser.step()

    return model, optimiser, step


def peak(candidate: str, rows: int) -> int:
    """The bytes that building the model and three steps add to the process at their peak."""
    before, (_, _, step) = memory_now(), trained(candidate, rows)
    for _ in range(3):
        step()
    return memory_peak() - before


def checkpoint(rows: int) -> dict[str, int]:
    """Milliseconds of CPU time, and MB that are added to the process at the peak, of writing a checkpoint with the best weights."""
    model, optimiser, step = trained("sparse", rows)
    step()
    best = {f"best.{name}": value.clone() for name, value in model.state_dict().items()}
    with TemporaryDirectory() as folder:
        before, start = memory_now(), time.process_time()
        save_checkpoint(Path(folder), 1, capture({"model": model}, optimiser, CPU) | best, {})
        spent, most = time.process_time() - start, memory_peak() - before
    return {"checkpoint, ms": round(spent * 1e3), "checkpoint, MB": round(most / 1e6)}


def measure(rows: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of CPU time a step of each candidate, the ratios of ours to the others, and the peaks in MB."""
    peaks = {f"{name}, MB": round(peak(name, rows) / 1e6) for name in CANDIDATES if rows >= LARGE}
    steps = {name: trained(name, rows)[2] for name in CANDIDATES}
    times = interleave.rounds(steps, seconds=seconds, minimum=7, stretch=0.0, clock=time.process_time)
    del steps
    return {"rows": rows, **interleave.figures(times, ["sparse"]), **peaks, **(checkpoint(rows) if rows >= LARGE else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long a table size is measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for row in map(partial(measure, seconds=arguments.seconds), ROWS):
        found.append(row)
        told = (f"{name} {row[f'{name}, ms']:.1f} ms, {row.get(f'{name}, MB', '-')} MB" for name in CANDIDATES)
        print(f"{row['rows']:,} rows: {'; '.join(told)}; sparse/dense {row['sparse/dense']:.3f}", flush=True)
    results.write(PATH, {"machine": machine.description(), "case": {"fields": FIELDS, "width": WIDTH, "B": BATCH}, "rows": found})
    print(f"written to {PATH}")


if __name__ == "__main__":
    main()
