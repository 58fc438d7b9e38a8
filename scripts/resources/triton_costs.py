"""The predicted time of whole calls by the Triton kernels, launch by launch, beside the goals. No GPU ran: these are no measurements."""

from __future__ import annotations

from importlib import import_module
from math import ceil
from typing import Any

SHAPES: tuple[dict[str, Any], ...] = (
    # the goals of docs/inside/triton.md: of the floor's time, or microseconds
    {"pass": "forward", "B": 8192, "D": 624, "T": 2, "L": 3, "goal": "1.3 of the floor"},
    {"pass": "training", "B": 8192, "D": 624, "T": 2, "L": 3, "goal": "2 of the floor"},
    {"pass": "forward", "B": 256, "D": 256, "T": 2, "L": 3, "goal": "25 us in a CUDA graph"},
    {"pass": "forward", "B": 256, "D": 624, "T": 2, "L": 3, "goal": ""},
    {"pass": "training", "B": 512, "D": 320, "T": 2, "L": 3, "goal": ""},
)
KIND, GATES, ITEMSIZE = "bfloat16", 2, 2


RANK_GOAL = "3 times as fast as eager, 1.5 times as fast as torch.compile"


def predictions() -> list[dict[str, Any]]:
    """A row for each of SHAPES, and for the low-rank cell. The kernels' modules must have been loaded, see triton_compile.load."""
    low_rank = [_low_rank_bound(8192, 624, 2, 3, 64, RANK_GOAL, name) for name in ("forward", "training")]
    return [*(_prediction(**shape) for shape in SHAPES), *low_rank]


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The rows for people."""
    found = ["", "predicted for an H100, bfloat16, G = 2 (no measurement):"]
    for row in rows:
        launches = ", ".join(f"{launch['count']} x {launch['kernel']} {launch['us']}" for launch in row["launches"])
        size = " ".join([row["pass"], *(f"{name}={row[name]}" for name in ("B", "D", "T", "L", "rank") if name in row)])
        goal = f", goal {row['goal']}" if row["goal"] else ""
        floor = f", {row['of_floor']} of the floor of {row['floor_us']} us" if "of_floor" in row else ""
        found.append(f"{size}: {row['us']} us{floor}{goal}; {launches}")
    return found


def _prediction(B: int, D: int, T: int, L: int, goal: str, **kind: str) -> dict[str, Any]:
    """``gflop`` and ``mb`` of a launch are what its products need, and what it reads and writes once, caches or not."""
    table, costs = import_module("kernels.tile_table"), import_module("kernels.cost_model")
    sizes = table.Sizes(KIND, table.bucket(B * T), D, D, GATES, L, T)
    launches, times = list[dict[str, Any]](), list[float]()
    weights, unit = T * GATES * D * D, T * B * D
    product = 2 * weights * B

    def launch(name: str, count: int, seconds: float, bound: str, flops: int, values: int, tile: str = "") -> None:
        launches.append(_launch(name, tile, count, seconds, bound, flops, values))
        times.append(count * seconds)

    def kernel(name: str, count: int, flops: int, values: int) -> None:
        tile = costs.predicted(name, sizes)
        limits = costs.limits(name, tile, sizes)
        launch(name, count, max(limits.values()), max(limits, key=limits.__getitem__), flops, values, str(tile))

    def library(name: str, batch: int) -> None:
        seconds = library_seconds(T * batch, GATES * D, D, B)
        launch(name, 1, seconds, "library's product", batch * product, batch * ((1 + GATES) * unit + 2 * weights))

    training, schedule = kind["pass"] == "training", costs.predicted_schedule(sizes)
    kept = GATES * unit if training else 0
    if schedule == table.STEP:
        kernel(schedule, L, product, weights + 2 * unit + B * D + kept)
    else:
        kernel(schedule, 1, L * product, weights + (L + 1) * unit + B * D + L * kept)
    floor = L * library_seconds(T, B, GATES * D, D)
    if training:
        launch("start", 1, _memory_seconds(ITEMSIZE * unit * (2 + 2 * GATES)), "memory", 0, unit * (2 + 2 * GATES))
        launch("gather", 1, _memory_seconds(2 * ITEMSIZE * weights), "memory", 0, 2 * weights)
        kernel("backward", L - 1, product, weights + (3 + 2 * GATES) * unit)
        kernel("inputs", 1, product, weights + L * (1 + GATES) * unit + B * D)
        library("product of dW, first step", 1)
        library("product of dW, other steps", L - 1)
        launch("sums of dW", 1, _memory_seconds(ITEMSIZE * weights * (L + 1)), "memory", 0, weights * (L + 1))
        floor += L * library_seconds(T, B, D, GATES * D) + library_seconds(T * L, GATES * D, D, B)
    total = sum(times)
    rounded = {"us": round(1e6 * total, 1), "floor_us": round(1e6 * floor, 1), "of_floor": round(total / floor, 2)}
    return {**kind, "B": B, "D": D, "T": T, "L": L, "goal": goal, **rounded, "launches": launches}


def library_seconds(batch: int, rows: int, columns: int, long: int) -> float:
    """The time of ``batch`` products [rows, long] x [long, columns] by a library, the floor of a kernel.

    The library is assumed to have tiles of 128 x 256, of which two load the wider operand together.
    """
    costs = import_module("kernels.cost_model")
    tiles = batch * ceil(rows / 128) * ceil(columns / 256)
    flops, moved = 2 * 128 * 256 * long, (128 + 128) * long * ITEMSIZE
    product = max(costs.flop_seconds(flops, KIND) * costs.MULTIPROCESSORS, moved / costs.BYTES_A_MULTIPROCESSOR)
    return max(ceil(tiles / costs.MULTIPROCESSORS) * (product + costs.TILE_SECONDS), tiles * moved / costs.L2_BYTES)


def _memory_seconds(moved: int) -> float:
    """The time to read and write so many bytes of memory."""
    return moved / import_module("kernels.cost_model").MEMORY_BYTES


def _launch(kernel: str, tile: str, count: int, seconds: float, bound: str, flops: int, values: int) -> dict[str, Any]:
    work = {"gflop": round(flops / 1e9, 2), "mb": round(ITEMSIZE * values / 1e6, 2)}
    return {"kernel": kernel, "tile": tile, "count": count, "us": round(1e6 * seconds, 1), "bound": bound, **work}


def _low_rank_bound(B: int, D: int, T: int, L: int, r: int, goal: str, name: str) -> dict[str, Any]:
    """The least times of the low-rank cell's launches, by their FLOPs and the bytes that each reads and writes once.

    The cost model knows no tiles of these kernels, so this is a bound and no prediction.
    """
    costs = import_module("kernels.cost_model")
    unit, thin, rows, columns = T * B * D, L * T * B * GATES * r, T * GATES * D * r, T * GATES * r * D
    product = 2 * GATES * T * B * D * r  # of a step: all units with the rank's columns, in one direction
    work = [
        ("gathers", 0, 2 * (rows + columns)),
        ("low_rank_forward", 2 * L * product, B * D + unit + rows + columns + (thin if name == "training" else 0)),
    ]
    if name == "training":
        gates = L * GATES * unit  # da and dq of all steps
        work += [
            ("gathers again", 0, 2 * (rows + columns)),
            ("low_rank_backward", 3 * L * product, 2 * unit + gates + 3 * thin + (8 * L + 4) // ITEMSIZE * unit + rows + columns),
            ("low_rank_states", L * product, thin + B * D + (L - 1) * unit + rows),
            ("low_rank_inputs", L * product, thin + unit + B * D + columns),
            ("products of dW and dV", L * product, gates + thin + rows),
            ("products of dP and dQ", L * product, thin + B * D + (L - 1) * unit + columns),
        ]
    launches, total = [], 0.0
    for kernel, flops, values in work:
        seconds = {"tensor cores": costs.flop_seconds(flops, KIND), "memory": _memory_seconds(ITEMSIZE * values)}
        bound = max(seconds, key=seconds.__getitem__)
        total += seconds[bound]
        launches.append(_launch(kernel, "", 1, seconds[bound], bound, flops, values))
    return {"pass": name, "B": B, "D": D, "T": T, "L": L, "rank": r, "goal": goal, "us": round(1e6 * total, 1), "launches": launches}
