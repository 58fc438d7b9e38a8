"""Does ``compile: true`` make a training step faster? Steps of the default model with and without it take turns.

Whole steps on census-income's train rows: the model, the loss, the backward and AdamW.
"""

from __future__ import annotations

from argparse import Namespace
from itertools import product
from typing import Any

from dcrnn_fast.data import prepare

from ..interleave import compared
from ..steps import batches_of, default_step

SECONDS = 15.0
DATA, OURS = "census-income", "compiled"
BATCHES, PRECISIONS = (512, 4096), ("float32", "bfloat16")


def run(options: Namespace) -> dict[str, Any]:
    """A row for each batch size and precision."""
    dataset, rows = prepare(DATA), []
    for size, precision in product(BATCHES, PRECISIONS):
        batches = batches_of(dataset, size)
        steps = {name: default_step(dataset, batches, precision, compile=name == OURS) for name in (OURS, "eager")}
        rows.append(compared({"B": size, "dtype": precision}, steps, [OURS], seconds=options.seconds))
    return {"data": DATA, "rows": rows}
