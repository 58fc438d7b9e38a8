"""What all studies share: the runs that a file of results lacks, differences seed by seed, and how a study's tables are written."""

from __future__ import annotations

import json
import math
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dcrnn_fast.data import PackedDataset, known_data_sets, prepare
from dcrnn_fast.training import load_config, train

from .. import machine, results
from ..quality.data_sets import write_log, write_movielens
from ..quality.runner import one_thread_in_new_processes

NAMES = (
    "ablation", "continuing", "first_order", "large_log", "late_labels", "position", "rank", "redrawn", "scenarios", "selection_bias",
    "synthetic_tasks",
)  # fmt: skip
MOVIELENS = "movielens-100k"

Row = Mapping[str, Any]
Rows = Sequence[Row]
Content = Mapping[str, Any]
"""What a file of results holds: the machine, the configuration, the rows, and what a study adds to them."""
Table = tuple[Sequence[str], list[list[str]]]
"""A header and lines."""


def nothing(*_: Any) -> dict[str, Any]:
    """Stands for the steps that a study does not have."""
    return {}


def always(*_: Any) -> bool:
    """Stands for a condition that a study does not have."""
    return True


@dataclass(frozen=True)
class Study:
    """A study: its cases, how one of them is run, and what its tables show. Its name is that of its file in bench/results/."""

    name: str
    run: Callable[..., dict[str, Any]]
    """Trains once: ``run(*case, options=, folder=)`` gives a row without the columns that name the case. The folder is its own."""
    told: Callable[[Row], str]
    """A row in words."""
    tables: Callable[[Content], list[Table]]
    note: Callable[[Content], str]
    """What the tables show."""
    data: Sequence[str] = ()
    settings: Sequence[Any] = ()
    seeds: int = 3
    columns: tuple[str, ...] = ("data", "setting", "seed")
    """The columns that name a case."""
    first_seed: int = 0
    fits: Callable[[str, Any, int, Namespace], bool] = always
    """Whether a case is one: by its data, setting and seed."""
    about: Callable[[Namespace], dict[str, Any]] = nothing
    """What the rows' file says of all of them. Rows of another ``about`` are dropped."""
    cases: Callable[[Rows, Namespace], Iterable[tuple[Any, ...]]] | None = None
    """The cases to run once these rows are there; asked again after them. By default data x settings x seeds."""
    start: Callable[[Namespace], Any] = nothing
    """Called before the first run."""
    finish: Callable[[Content, Namespace], Mapping[str, Any]] = nothing
    """What is added when all rows are there."""
    draw: Callable[[Content, Path], Any] = nothing
    """Draws the study's figure into a file."""
    add_options: Callable[[ArgumentParser], Any] = nothing
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Options with which it runs within a minute."""

    def all_cases(self, rows: Rows, options: Namespace) -> Iterator[tuple[Any, ...]]:
        """The cases that the options ask for."""
        if self.cases is not None:
            yield from self.cases(rows, options)
            return
        seeds = range(self.first_seed, self.first_seed + options.seeds)
        for seed, data, setting in product(seeds, options.data, options.settings):
            if self.fits(data, setting, seed, options):
                yield data, setting, seed


def study(name: str) -> Study:
    """A study by its name."""
    return import_module(f"{__package__}.{name}").STUDY


def section(name: str, content: Content | None = None) -> str:
    """The tables of a study as Markdown, from its committed results unless others are given; below them what they show."""
    asked, content = study(name), results.read(f"{name}.json") if content is None else content
    tables = "\n\n".join(results.markdown(*table) for table in asked.tables(content))
    alone = name != "rank" or content["configuration"]["threads"] == 1
    source = machine.line(content["machine"]) + (", one thread a run" if alone else "")
    return f"{tables}\n\n{asked.note(content)} {source}; `bench/results/{name}.json`."


def complete(asked: Study, path: Path, options: Namespace) -> dict[str, Any]:
    """Run each case that the file at ``path`` lacks, and write every row at once: a killed command goes on where it was.

    Rows of another machine, version or configuration are dropped with ``options.replace``; else they end the command.
    """
    about = json.loads(json.dumps({"machine": machine.description(), **asked.about(options)}))
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if known and (told := "; ".join(_differences(known, about))):
        if not options.replace:
            raise SystemExit(f"{path} holds {len(known['rows'])} rows that these could not stand beside: {told}; --replace drops them")
        known = {}
    content = known or {**about, "rows": []}
    rows = content["rows"]
    asked.start(options)
    with processes(options.workers) as over:
        while left := _left(asked, rows, options):
            for number, row in enumerate(over(partial(_run, asked.name, options), left), start=1):
                rows.append(row)
                results.write(path, content)
                case = ", ".join(f"{column} {row[column]}" for column in asked.columns)
                print(f"[{number}/{len(left)}] {case}: {asked.told(row)}", flush=True)
    content |= asked.finish(content, options)
    results.write(path, content)
    asked.draw(content, path.with_suffix(".svg"))
    return content


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """In words, each entry of ``now`` that was another one."""
    for key, value in now.items():
        was = before.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from (f"{key}, {told}" for told in _differences(was, value))
        elif was != value:
            yield f"{key} was {was} and is {value}"


def _left(asked: Study, rows: Rows, options: Namespace) -> list[tuple[Any, ...]]:
    done = {tuple(row[column] for column in asked.columns) for row in rows}
    return [case for case in asked.all_cases(rows, options) if case not in done]


def _run(name: str, options: Namespace, case: tuple[Any, ...]) -> dict[str, Any]:
    asked = study(name)
    with TemporaryDirectory() as folder:
        return dict(zip(asked.columns, case, strict=True)) | asked.run(*case, options=options, folder=Path(folder))


@contextmanager
def processes(workers: int) -> Iterator[Any]:
    """``map``, in other processes with one thread each; in this one for 0 workers."""
    if not workers:
        yield map
        return
    spawn = get_context("spawn")
    with one_thread_in_new_processes(), ProcessPoolExecutor(workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map


def packed(data: str, seed: int, options: Namespace, folder: Path, min_count: int = 5) -> PackedDataset:
    """An embedded data set or one of a schema; MovieLens-100K; or "id-log", a table of mostly ids that each seed draws anew.

    ``min_count`` is that of the last two.
    """
    if data.startswith("id-log"):
        data = write_log(seed, folder, min_count=1 if data.endswith("min_count 1") else min_count)
    elif data == MOVIELENS:
        data = write_movielens(options.movielens, folder, min_count=min_count)
    return prepare(data, cache_dir=None if data in known_data_sets() else folder / "cache")


def trained(dataset: PackedDataset, seed: int, keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The metrics of the default configuration with these keys, trained with one thread."""
    config = load_config(None, {"data": dataset.meta.name, "seed": seed, "threads": 1, **keys})
    return train(config, folder / "run", dataset=dataset)


def defaults(keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """For ``Study.about``: the default configuration with these keys."""
    return {"configuration": load_config(None, {"data": "each of them", "threads": 1, **(keys or {})}).to_dict()}


def grouped(rows: Iterable[Row], *columns: str) -> dict[Any, list[Row]]:
    """The rows by the values of some columns (of one column: by its value), sorted by seed."""
    found: dict[Any, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        key = tuple(row[column] for column in columns)
        found.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return found


def standard_error(values: Sequence[float]) -> float:
    """That of the mean; NaN of one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def beside(values: Sequence[float], others: Sequence[float], spread: Callable[[Sequence[float]], float] = standard_error) -> str:
    """The mean of the values; in brackets mean and spread of the differences from the others, pair by pair."""
    differences = [value - other for value, other in zip(values, others, strict=True)]
    mean = f"{statistics.fmean(values):.4f}"
    if not any(differences):
        return mean
    around = f" ± {spread(differences):.4f}" if len(differences) > 1 else ""
    return f"{mean} ({statistics.fmean(differences):+.4f}{around})"


def seeds_of(content: Content) -> int:
    """How many seeds the rows have."""
    return len({row["seed"] for row in content["rows"]})
