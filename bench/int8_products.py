"""What could int8 save? ``make int8-products`` times the matrix products of a request in float32, bfloat16 and int8, on one thread.

The products are those of the default model for census-income, with PyTorch's own kernels. "int8" multiplies integers that are there
already (``torch._int_mm``). "int8, dynamic" also quantises the left operand and gives floats (``torch.ao``'s dynamic linear layer). Beside
them stands a whole request of the model prepared in bfloat16, whose products are those of our own kernels.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import linear

from . import timed_command
from .interleave import figures, rounds
from .requests import BATCHES, DATA, default_model, rows_of

NAME = "int8_products_cpu.json"
Sizes = Mapping[tuple[int, int], int]


def products_of(model: Any) -> Sizes:
    """How often a request multiplies [B, K] by [K, N], by (K, N), in the low-rank cell with a common projection and in the towers."""
    plan, tasks = model.plan, len(model.tasks)
    found: dict[tuple[int, int], int] = {}
    for size, count in (
        ((plan.dim, plan.gates * plan.rank), 1 + (plan.steps - 1) * tasks),  # the first step's is that of all tasks
        ((plan.rank, plan.dim), plan.gates * plan.steps * tasks),
        *(((layer.in_features, layer.out_features), tasks) for layer in model.towers),
    ):
        found[size] = found.get(size, 0) + count
    return found


def candidates_of(sizes: Sizes, batch: int) -> dict[str, Callable[[], Any]]:
    """All products of a request, by kind."""
    kinds: dict[str, list[tuple[Callable[[], Any], int]]] = {"float32": [], "bfloat16": [], "int8": [], "int8, dynamic": []}
    for (inner, width), count in sizes.items():
        left, right = torch.randn(batch, inner), torch.randn(width, inner) / inner**0.5
        layer = torch.nn.Linear(inner, width, bias=False)
        layer.weight.copy_(right)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch recommends another package for new code
            dynamic = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear}, dtype=torch.qint8)
        halves, integers = (left.bfloat16(), right.bfloat16()), ((left * 30).to(torch.int8), (right * 300).to(torch.int8).T)
        torch.testing.assert_close(torch._int_mm(*integers), integers[0].int() @ integers[1].int())
        for name, product in zip(
            kinds,
            (
                lambda left=left, right=right: linear(left, right),
                lambda halves=halves: linear(*halves),
                lambda integers=integers: torch._int_mm(*integers),
                lambda left=left, dynamic=dynamic: dynamic(left),
            ),
            strict=True,
        ):
            kinds[name].append((product, count))

    def all_of(products: list[tuple[Callable[[], Any], int]]) -> Callable[[], None]:
        def run() -> None:
            for product, count in products:
                for _ in range(count):
                    product()

        return run

    return {name: all_of(products) for name, products in kinds.items()}


def measure(seconds: float) -> dict[str, Any]:
    """A row for each batch size."""
    torch.set_num_threads(1)
    model, dataset = default_model("cpp")
    prepared = copy.deepcopy(model).bfloat16().prepare_inference()
    found = []
    with torch.inference_mode():
        for batch in BATCHES:
            ids, dense = rows_of(dataset, batch)
            runs = {**candidates_of(products_of(model), batch), "request": lambda ids=ids, dense=dense: prepared.predict(ids, dense)}
            times = rounds(runs, seconds=seconds, minimum=200, stretch=0.0)
            found.append(timed_command.told({"B": batch, **figures(times, ["int8", "int8, dynamic"])}))
    return {"rows": found}


if __name__ == "__main__":
    timed_command.run(__doc__, NAME, DATA, measure, seconds=20.0)
