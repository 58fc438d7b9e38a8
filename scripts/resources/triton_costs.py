"""The predicted time of whole calls by the Triton kernels, launch by launch, beside the goals. No GPU ran: these are no measurements."""

from __future__ import annotations

from importlib import import_module
from typing import Any

SHAPES: tuple[dict[str, Any], ...] = (
    # the goals of docs/inside/triton.md: of the floor's time, or microseconds
    {"pass": "forward", "B": 8192, "D": 624, "T": 2, "L": 3, "goal": "1.3 of the floor"},
    {"pass": "training", "B": 8192, "D": 624, "T": 2, "L": 3, "goal": "2 of the floor"},
    {"pass": "forward", "B": 256, "D": 256, "T": 2, "L": 3, "goal": "25 us in a CUDA graph"},
    {"pass": "forward", "B": 256, "D": 624, "T": 2, "L": 3, "goal": ""},
    {"pass": "training", "B": 512, "D": 320, "T": 2, "L": 3, "goal": ""},
)
KIND, GATES = "bfloat16", 2


def predictions() -> list[dict[str, Any]]:
    """A row for each of SHAPES. The kernels' modules must have been loaded, see triton_compile.load."""
    return [_prediction(**shape) for shape in SHAPES]


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The rows for people."""
    found = ["", "predicted for an H100, bfloat16, G = 2 (no measurement):"]
    for row in rows:
        launches = ", ".join(f"{launch['count']} x {launch['kernel']} {launch['us']}" for launch in row["launches"])
        size = f"{row['pass']} B={row['B']} D={row['D']} T={row['T']} L={row['L']}"
        goal = f", goal {row['goal']}" if row["goal"] else ""
        found.append(f"{size}: {row['us']} us, {row['of_floor']} of the floor of {row['floor_us']} us{goal}; {launches}")
    return found


def _prediction(B: int, D: int, T: int, L: int, goal: str, **kind: str) -> dict[str, Any]:
    table, costs = import_module("kernels.tile_table"), import_module("kernels.cost_model")
    sizes = table.Sizes(KIND, table.bucket(B * T), D, D, GATES, L, T)
    launches: list[tuple[str, str, int, float]] = []

    def kernel(name: str, count: int, share: float = 1.0) -> None:
        tile = costs.predicted(name, sizes)
        launches.append((name, str(tile), count, share * costs.predicted_seconds(name, tile, sizes)))

    schedule = costs.predicted_schedule(sizes)
    kernel(schedule, L if schedule == table.STEP else 1)
    floor = L * costs.library_seconds(T, B, GATES * D, D, KIND)
    if kind["pass"] == "training":
        weights, unit = T * GATES * D * D, 2 * T * B * D
        launches.append(("start", "", 1, costs.memory_seconds(unit * (2 + 2 * GATES))))
        launches.append(("gather", "", 1, costs.memory_seconds(2 * 2 * weights)))
        kernel("backward", L - 1)
        kernel("inputs", 1)
        launches.append(("product of dW, first step", "", 1, costs.library_seconds(T, GATES * D, D, B, KIND)))
        launches.append(("product of dW, other steps", "", 1, costs.library_seconds(T * (L - 1), GATES * D, D, B, KIND)))
        launches.append(("sums of dW", "", 1, costs.memory_seconds(weights * (2 * L + 4 + 4 + 2))))
        floor += L * costs.library_seconds(T, B, D, GATES * D, KIND) + costs.library_seconds(T * L, GATES * D, D, B, KIND)
    total = sum(count * seconds for _, _, count, seconds in launches)
    rows = [{"kernel": name, "tile": tile, "count": count, "us": round(1e6 * one, 1)} for name, tile, count, one in launches]
    rounded = {"us": round(1e6 * total, 1), "floor_us": round(1e6 * floor, 1), "of_floor": round(total / floor, 2)}
    return {**kind, "B": B, "D": D, "T": T, "L": L, "goal": goal, **rounded, "launches": rows}
