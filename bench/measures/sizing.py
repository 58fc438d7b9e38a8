"""What would a table over many GPUs need? A model from bandwidths; nothing is measured.

The table lies in even parts on all ranks, as torchrec's row-wise sharding has it. The trainer of this package does not do that: each of its
ranks holds the whole table. Left out are launches and latencies, ids that are read more often than others, the sorting of ids, and a
bandwidth of scattered reads below that of the data sheet, so a real step takes longer.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, fields
from typing import NamedTuple

from .. import results

RANKS = (8, 16, 32, 64, 128, 256)
ID_BYTES = 8
"""An id travels as int64."""
ADAGRAD_BYTES = 4
"""Row-wise Adagrad's state of a row: one float32."""
DENSE_BYTES = 16
"""Of a parameter outside the table on each rank: float32 weight, gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Inputs:
    """What the model reads. Each is an option of the command; GB and GB/s count 10^9 bytes.

    The GPU is NVIDIA's H100 SXM (https://www.nvidia.com/en-us/data-center/h100/), the node a DGX H100
    (https://docs.nvidia.com/dgx/dgxh100-user-guide/introduction-to-dgxh100.html). Of NVLink's 450 GB/s one way NCCL reaches 370
    (https://github.com/NVIDIA/nccl-tests/issues/212), of a 400 Gb/s network card's 50 GB/s it reaches 46 to 48
    (https://github.com/NVIDIA/nccl-tests/issues/290).
    """

    rows: int = 1_000_000_000
    width: int = 64  # of an embedding; the first-order term's number for each task is not counted
    value_bytes: int = 4  # float32; 2 for bfloat16
    ids: int = 26  # ids that a row of data reads: the categorical columns of Criteo's logs
    batch: int = 4096  # rows of data a rank
    node: int = 8  # GPUs a node
    memory_gb: float = 80.0  # of a GPU
    hbm_gbs: float = 3350.0  # between a GPU and its memory
    nvlink_gbs: float = 370.0  # from a GPU to the others of its node, one way, as NCCL reaches it
    network_gbs: float = 47.0  # from a GPU to other nodes, one way, as NCCL reaches it
    tflops: float = 989.0  # bfloat16, of a GPU, without sparsity
    dense_parameters: int = 488_578  # outside the table: the default configuration with two tasks and 26 fields of width 64
    dense_flops: int = 2_138_240  # a row of data, of the forward pass's matrix products


class Needs(NamedTuple):
    """What each rank needs: bytes in memory with row-wise Adagrad and with AdamW, the bytes that it sends in a step, and seconds of a step
    with row-wise Adagrad. ``replicated`` are the bytes in memory of this package's trainer, which keeps the whole table on each rank.
    """

    adagrad: float
    adamw: float
    sent: float
    exchange: float
    table: float
    dense: float
    replicated: int


def needs(inputs: Inputs, ranks: int) -> Needs:
    """The model, for a number of ranks."""
    row, ids = inputs.width * inputs.value_bytes, inputs.batch * inputs.ids
    # Each id goes to the rank that has it, its vector back, and the vector's gradient. A rank keeps the part that it has itself.
    exchanged = ids * (ID_BYTES + 2 * row)
    beside = exchanged + inputs.dense_parameters * DENSE_BYTES
    # What goes to other nodes and what stays in the node travel at once: the slower of them counts.
    outside = max(0, ranks - inputs.node) / ranks / inputs.network_gbs
    inside = (min(ranks, inputs.node) - 1) / ranks / inputs.nvlink_gbs
    # The forward reads a row and writes it to be sent. The backward reads its gradient, and reads and writes the row and its state.
    table = ids * (5 * row + 2 * ADAGRAD_BYTES) / (inputs.hbm_gbs * 1e9)
    # Products of the model outside the table (a backward costs two forwards), then the ring that adds up its gradients.
    products = 3 * inputs.dense_flops * inputs.batch / (inputs.tflops * 1e12)
    rate = inputs.nvlink_gbs if ranks <= inputs.node else inputs.network_gbs
    return Needs(
        adagrad=inputs.rows * (row + ADAGRAD_BYTES) / ranks + beside,
        adamw=inputs.rows * (row + 8 * inputs.width) / ranks + beside,
        sent=exchanged * (ranks - 1) / ranks,
        exchange=exchanged * max(outside, inside) / 1e9,
        table=table,
        dense=products + 2 * (ranks - 1) / ranks * 4 * inputs.dense_parameters / (rate * 1e9),
        replicated=inputs.rows * (row + ADAGRAD_BYTES),
    )


def line(inputs: Inputs, ranks: int) -> list[str]:
    """The cells of the table's line for that many ranks."""
    found = needs(inputs, ranks)
    step = found.exchange + found.table + found.dense
    memory = [f"{size / 1e9:.1f} GB{' (too much)' * (size > inputs.memory_gb * 1e9)}" for size in (found.adagrad, found.adamw)]
    times = [f"{seconds * 1e3:.2f} ms" for seconds in (found.exchange, found.table, found.dense, step)]
    return [str(ranks), *memory, f"{found.sent / 1e6:.1f} MB", *times, f"{ranks * inputs.batch / step / 1e6:,.0f} million"]


HEADER = (
    "GPUs", "memory a GPU: row-wise Adagrad", "memory a GPU: AdamW", "sent a GPU and step", "all-to-all", "table", "dense part", "step",
    "rows of data/s",
)  # fmt: skip


def table(inputs: Inputs, ranks: tuple[int, ...] = RANKS) -> str:
    """Markdown: a line for each number of ranks, and what they were computed from."""
    return (
        f"{results.markdown(HEADER, [line(inputs, count) for count in ranks])}\n\n"
        f"A model: nothing here was measured. {inputs.rows:,} rows x {inputs.width} in {inputs.value_bytes} bytes a value, "
        f"{inputs.ids} ids a row of data, {inputs.batch:,} rows of data a GPU and step. GB are 10^9 bytes. Times of a step with row-wise "
        f"Adagrad. Our own trainer keeps the whole table on each GPU: {needs(inputs, 1).replicated / 1e9:.1f} GB, however many there are."
    )


def run(options: Namespace) -> None:
    """Print the table."""
    print(table(Inputs(**{field.name: getattr(options, field.name) for field in fields(Inputs)}), tuple(options.ranks)))


def add_options(parser: ArgumentParser) -> None:
    for field in fields(Inputs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS), help="numbers of GPUs")
