"""What would a table over many GPUs need? A model from bandwidths; nothing is measured.

The table lies in even parts on all ranks, as torchrec's row-wise sharding has it. The trainer of this package does not do that: each of its
ranks holds the whole table. docs/guide/sizing.md says the formulas in words, with the sources of the inputs.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, fields

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
    """What the model reads. Each is an option of the command; GB and GB/s count 10^9 bytes."""

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


def adamw_bytes(inputs: Inputs) -> int:
    """AdamW's state of a row: two float32 for each value."""
    return 8 * inputs.width


def row_bytes(inputs: Inputs) -> int:
    """A row of the table."""
    return inputs.width * inputs.value_bytes


def exchanged_bytes(inputs: Inputs) -> int:
    """What a rank's rows of data make ranks send in a step: each id to the rank that has it, its vector back, and the vector's gradient."""
    return inputs.batch * inputs.ids * (ID_BYTES + 2 * row_bytes(inputs))


def sent_bytes(inputs: Inputs, ranks: int) -> float:
    """What a rank sends to others in a step: all but the part that it has itself."""
    return exchanged_bytes(inputs) * (ranks - 1) / ranks


def rank_memory(inputs: Inputs, ranks: int, state: int) -> float:
    """Bytes on each rank: its part of the table and of the optimiser's state, what it exchanges, and all that is not the table."""
    return inputs.rows * (row_bytes(inputs) + state) / ranks + exchanged_bytes(inputs) + inputs.dense_parameters * DENSE_BYTES


def replicated_memory(inputs: Inputs) -> float:
    """Bytes on each rank of this package's trainer, however many ranks there are: the table and row-wise Adagrad's state."""
    return float(inputs.rows * (row_bytes(inputs) + ADAGRAD_BYTES))


def exchange_seconds(inputs: Inputs, ranks: int) -> float:
    """The all-to-alls of a step. What goes to other nodes and what stays in the node travel at once: the slower of them counts."""
    outside = max(0, ranks - inputs.node) / ranks / inputs.network_gbs
    inside = (min(ranks, inputs.node) - 1) / ranks / inputs.nvlink_gbs
    return exchanged_bytes(inputs) * max(outside, inside) / 1e9


def table_seconds(inputs: Inputs, state: int) -> float:
    """Reads and writes of a GPU's memory for the ids that reach it, as many as its own rows of data have.

    The forward reads a row and writes it to be sent. The backward reads its gradient, and reads and writes the row and its state.
    """
    return inputs.batch * inputs.ids * (5 * row_bytes(inputs) + 2 * state) / (inputs.hbm_gbs * 1e9)


def dense_seconds(inputs: Inputs, ranks: int) -> float:
    """Products of the model outside the table (a backward costs two forwards), then the ring that adds up its gradients."""
    products = 3 * inputs.dense_flops * inputs.batch / (inputs.tflops * 1e12)
    rate = inputs.nvlink_gbs if ranks <= inputs.node else inputs.network_gbs
    return products + 2 * (ranks - 1) / ranks * 4 * inputs.dense_parameters / (rate * 1e9)


def step_seconds(inputs: Inputs, ranks: int) -> float:
    """A step with row-wise Adagrad, its parts one after another."""
    return exchange_seconds(inputs, ranks) + table_seconds(inputs, ADAGRAD_BYTES) + dense_seconds(inputs, ranks)


def line(inputs: Inputs, ranks: int) -> list[str]:
    """The cells of the table's line for that many ranks."""
    memory = []
    for state in (ADAGRAD_BYTES, adamw_bytes(inputs)):
        size = rank_memory(inputs, ranks, state) / 1e9
        memory.append(f"{size:.1f} GB" + (" (too much)" if size > inputs.memory_gb else ""))
    times = (exchange_seconds(inputs, ranks), table_seconds(inputs, ADAGRAD_BYTES), dense_seconds(inputs, ranks))
    step = step_seconds(inputs, ranks)
    return [
        str(ranks),
        *memory,
        f"{sent_bytes(inputs, ranks) / 1e6:.1f} MB",
        *(f"{seconds * 1e3:.2f} ms" for seconds in (*times, step)),
        f"{ranks * inputs.batch / step / 1e6:,.0f} million",
    ]


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
        f"Adagrad. Our own trainer keeps the whole table on each GPU: {replicated_memory(inputs) / 1e9:.1f} GB, however many there are."
    )


def run(options: Namespace) -> None:
    """Print the table."""
    print(table(Inputs(**{field.name: getattr(options, field.name) for field in fields(Inputs)}), tuple(options.ranks)))


def add_options(parser: ArgumentParser) -> None:
    for field in fields(Inputs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS), help="numbers of GPUs")
