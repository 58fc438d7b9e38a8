"""A prediction of how long a launch takes, which chooses schedules and tile sizes where nothing was measured.

Nothing here was measured on a GPU: docs/inside/triton.md says how far to trust it. A tile takes its products, one block of ``block_k``
after another, and then its element-wise part. A multiprocessor takes tiles one after another, or two of four warps at a time. What limits
it is the rate of its tensor cores, the bytes that it gets from the L2 cache, and how long it waits for the loads of a short pipeline. All
multiprocessors together are limited by the bytes that the L2 cache and the memory give.
"""

from __future__ import annotations

from math import ceil

from dcrnn_fast.errors import BackendUnavailable

from .tile_table import ALL_STEPS, ITEMSIZE, SCHEDULES, STEP, Config, Sizes, candidates, product_columns

# An H100 SXM, whose numbers all cards take. From NVIDIA's data sheet: the clock, FLOPs and memory. The others are assumptions.
MULTIPROCESSORS = 132
_CLOCK = 1.83e9
_FLOPS = {"bfloat16": 989e12, "float16": 989e12, "tf32": 495e12, "float32": 67e12, "float64": 67e12}
_SUSTAINED = 0.8
"""The part of the data sheet's FLOPs that long products reach."""
L2_BYTES, BYTES_A_MULTIPROCESSOR = 5.5e12, 64 * _CLOCK
"""What the L2 cache gives to all multiprocessors a second, and to one of them, 64 bytes a clock."""
MEMORY_BYTES = 3.35e12 * 0.85
_LOAD_SECONDS = 0.5e-6
"""From the issue of a load to its use. A pipeline of n stages starts n - 1 blocks of a product in this time."""
TILE_SECONDS = 1.5e-6
"""The start and the end of a tile, in which the tensor cores wait."""
_LAUNCH_SECONDS = 5e-6
"""Between launches, from Python."""


def tile_work(kernel: str, config: Config, sizes: Sizes) -> tuple[int, int]:
    """The FLOPs of a tile's product, and the bytes of its operands, each read once."""
    wide, long = product_columns(kernel, config, sizes.gates), _terms(kernel, sizes)
    return 2 * config.block_b * wide * long, (config.block_b + wide) * long * ITEMSIZE[sizes.kind]


def predicted_seconds(kernel: str, config: Config, sizes: Sizes) -> float:
    """The time of one launch of a kernel."""
    return max(limits(kernel, config, sizes).values())


def limits(kernel: str, config: Config, sizes: Sizes) -> dict[str, float]:
    """The least time of one launch by each of what may limit it."""
    rows = ceil(sizes.rows / sizes.tasks) if kernel == "inputs" else sizes.rows
    row_tiles, unit_tiles = ceil(rows / config.block_b), ceil(sizes.dim / config.block_d)
    programs, tiles = (row_tiles, unit_tiles * sizes.steps) if kernel == ALL_STEPS else (row_tiles * unit_tiles, 1)
    # programs of 8 warps have their multiprocessor for themselves; of those of 4 warps two share one if there are enough of them
    neighbours = min(8 // config.num_warps, ceil(programs / sizes.card.multiprocessors))
    flops, moved = tile_work(kernel, config, sizes)
    elements = config.block_b * config.block_d * _bytes_a_unit(kernel, sizes)
    waves = ceil(programs / (neighbours * sizes.card.multiprocessors))

    def tile_by_tile(product_seconds: float) -> float:
        return waves * tiles * (product_seconds + neighbours * elements / BYTES_A_MULTIPROCESSOR + TILE_SECONDS)

    return {
        "tensor cores": tile_by_tile(flop_seconds(flops, sizes.kind) * MULTIPROCESSORS * neighbours),
        "operands of a multiprocessor": tile_by_tile(moved / BYTES_A_MULTIPROCESSOR * neighbours),
        "waits for loads": tile_by_tile(_waits(kernel, config, sizes)),
        "L2 cache": programs * tiles * (moved + elements) / L2_BYTES,
        "memory": programs * tiles * elements / MEMORY_BYTES,
    }


def predicted(kernel: str, sizes: Sizes) -> Config:
    """The configuration with the shortest predicted time. Raises BackendUnavailable where none fits the card."""
    fitting = candidates(kernel, sizes.kind, sizes.gates, sizes.card)
    if not fitting:
        raise BackendUnavailable(
            f"backend='triton' has no tiles for {sizes.kind} that fit {sizes.card.name} with {sizes.card.shared_memory} bytes of shared "
            "memory a block. Use backend='auto' or backend='reference'"
        )
    return min(fitting, key=lambda config: predicted_seconds(kernel, config, sizes))


def predicted_schedule(sizes: Sizes) -> str:
    """The schedule with the shorter predicted time; launches take time too."""
    at_once, one = (predicted_seconds(kernel, predicted(kernel, sizes), sizes) + _LAUNCH_SECONDS for kernel in (ALL_STEPS, STEP))
    return ALL_STEPS if at_once < sizes.steps * one else STEP


def flop_seconds(flops: int, kind: str) -> float:
    """The time of so many FLOPs on all tensor cores."""
    return flops / (_SUSTAINED * _FLOPS[kind])


def _terms(kernel: str, sizes: Sizes) -> int:
    """Terms of a value's product."""
    if kernel in SCHEDULES:
        return sizes.columns
    return sizes.gates * sizes.dim * (sizes.tasks if kernel == "inputs" else 1)


def _waits(kernel: str, config: Config, sizes: Sizes) -> float:
    """How long a tile's products wait at least for their loads."""
    return ceil(_terms(kernel, sizes) / config.block_k) * _LOAD_SECONDS / (config.num_stages - 1)


def _bytes_a_unit(kernel: str, sizes: Sizes) -> int:
    """What a kernel's element-wise part reads and writes of a row's unit, in training, without gradients of states."""
    values = {
        "backward": 3 + 2 * sizes.gates,  # reads d, x0, a, g; writes d, da, dq
        "inputs": 1 + sizes.tasks * sizes.steps * (1 + sizes.gates),  # reads d, a, g of every task and step; writes dx0
    }
    return values.get(kernel, 3 + sizes.gates) * ITEMSIZE[sizes.kind]  # forward: reads x0, h; writes h, a, g
