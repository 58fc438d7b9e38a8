"""Tunes and measures subjects, in this process or in several; each trains with one thread, so their number changes no result."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.errors import DcrnnFastError
from dcrnn_fast.training.device import deterministic

from . import tables
from .models import MODELS, fits
from .protocol import Protocol
from .search import final_runs, tune
from .work import Clock, Subject, Work

ONE_SIZE = "one"
"""The size of models that have no widths."""


@dataclass(frozen=True)
class Plan:
    """What a command asks for."""

    root: Path
    data: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[str, ...]
    trials: int
    seeds: int
    protocol: Protocol
    tuned_at: str | None = None
    """The size whose chosen setting all sizes take; None tunes each."""
    movielens: Path | None = None

    def load(self, data: str) -> PackedDataset:
        """The packed data set."""
        return tables.load(data, self.root, movielens=self.movielens, thin=self.protocol.thin)

    def subjects(self) -> list[Subject]:
        """Every model, of each size that it has, on each data set that it fits."""
        found = []
        for data in self.data:
            meta = self.load(data).meta
            for model in (name for name in self.models if fits(name, meta)):
                found += [Subject(data, model, size) for size in (self.sizes if MODELS[model].build else (ONE_SIZE,))]
        return found


def run_subject(plan: Plan, subject: Subject, subjects: list[Subject]) -> None:
    """Make every trial and final run of a subject that is not there yet."""
    work, dataset = Work(plan.root, plan.protocol), plan.load(subject.data)
    rows_each = {name: (plan.trials if model.space else 1) + plan.seeds for name, model in MODELS.items()}
    clock = Clock(work, subjects, rows_each)

    def tell(line: str) -> None:
        print(f"{line}; {clock.left()}", flush=True)

    with deterministic(1):
        tuned = subject if plan.tuned_at is None or subject.size == ONE_SIZE else subject._replace(size=plan.tuned_at)
        chosen = tune(work, tuned, dataset, plan.trials, tell)
        final_runs(work, subject, dataset, chosen, plan.seeds, tell)


def run(plan: Plan, workers: int) -> list[str]:
    """All subjects of the plan; returns what failed, in words. A model that fails does not stop the others."""
    subjects, failed = plan.subjects(), []
    if workers == 1:
        for subject in subjects:
            _attempt(subject, lambda subject=subject: run_subject(plan, subject, subjects), failed)
        return failed
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_subject, plan, subject, subjects): subject for subject in subjects}
        for future in as_completed(futures):
            _attempt(futures[future], future.result, failed)
    del os.environ["OMP_NUM_THREADS"]
    return failed


def _attempt(subject: Subject, action: Callable[[], None], failed: list[str]) -> None:
    try:
        action()
    except DcrnnFastError as error:
        failed.append(f"{subject}: {error}")
    except Exception as error:
        traceback.print_exc()
        failed.append(f"{subject}: {type(error).__name__}: {error}")
    else:
        return
    print(f"failed: {failed[-1]}", file=sys.stderr, flush=True)


def finished(plan: Plan, work: Work, data: str, digest: str) -> dict[Subject, list[dict[str, Any]]]:
    """The final runs of every subject of a data set that has all of them."""
    found: dict[Subject, list[dict[str, Any]]] = {}
    for subject in (subject for subject in plan.subjects() if subject.data == data):
        rows = [work.read(subject, f"seed-{seed}", digest) for seed in range(1, plan.seeds + 1)]
        there = [row for row in rows if row is not None]
        if len(there) == plan.seeds and all(row["setting"] == there[0]["setting"] for row in there):
            found[subject] = there
    return found
