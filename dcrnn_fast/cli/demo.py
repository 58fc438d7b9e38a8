"""``dcrnn-fast demo``: train on both embedded data sets, with the reference and with the fast backend, and print one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..training import Report, load_config, train
from ..training.device import select_backend, select_device
from ..training.evaluate.metrics import not_better_than_constant
from .tables import Sheet, number, print_lines, print_sheet

DATA = ("census-income", "hillstrom")


def run_demo(output: Path, console: Console, make_report: Callable[[], Report]) -> None:
    """Train in folders of ``output`` and print the table. Raises the errors of :func:`dcrnn_fast.training.train`."""
    fast = select_backend("auto", select_device("auto"))
    backends = ["reference"] if fast == "reference" else ["reference", fast]
    results = []
    for data in DATA:
        for backend in backends:
            report = make_report()
            report.note(f"training on {data}, backend {backend}")
            config = load_config(None, {"data": data, "backend": backend})
            results.append(train(config, output / f"{data}-{backend}", report=report))
    print_sheet(console, demo_sheet(results))
    for result in results:
        run = f"{result['data']['name']}, backend {result['model']['backend']}"
        print_lines(console, (f"{run}: {line}" for line in not_better_than_constant(result["test"])))
    if fast == "reference":
        once = "backend auto takes no fast backend here, so fast = reference: each data set was trained once (see `dcrnn-fast info`)."
        print_lines(console, [once])
    print_lines(console, ["Plots:", *(f"  {path}" for path in sorted(output.glob("*/curves.svg")))])


def demo_sheet(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row a run and task: test metrics, seconds of the whole training, rows/s of the training steps."""
    numeric = dict.fromkeys(("AUC", "log loss", "seconds", "rows/s", "parameters"), True)
    sheet = Sheet("DCRNN on the test rows", {"data set": False, "task": False} | numeric | {"backend": False})
    for result in results:
        run, model = result["train"], result["model"]
        cost = (f"{run['seconds']:.1f}", f"{run['rows_per_second']:,.0f}", f"{model['parameters']:,}", model["backend"])
        for task, entry in result["test"].items():
            name = f"{task} ({entry['role']})" if "role" in entry else task
            sheet.add(result["data"]["name"], name, number(entry["auc"]), number(entry["log_loss"]), *cost)
    return sheet
