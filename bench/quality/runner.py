"""Tunes and measures subjects, in this process or in several; each trains with one thread, so their number changes no result."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.errors import DcrnnFastError
from dcrnn_fast.training.device import deterministic

from . import data_sets
from .models import MODELS, fits
from .networks import Setting
from .protocol import Protocol
from .search import FINALIST_SEEDS, final_runs, tune
from .work import ONE_SIZE, Clock, Subject, Work


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
    trial_every: int = 1
    """Trials train on every n-th train row."""
    settings: Mapping[Subject, Setting] = field(default_factory=dict)
    """Settings that an earlier report chose: these subjects get no trials."""

    def load(self, data: str) -> PackedDataset:
        """The packed data set."""
        return data_sets.load(data, self.root, movielens=self.movielens, thin=self.protocol.thin)

    def subjects(self) -> list[Subject]:
        """Every model, of each size that it has, on each data set that it fits."""
        found = []
        for data in self.data:
            meta = self.load(data).meta
            for model in (name for name in self.models if fits(name, meta)):
                found += [Subject(data, model, size) for size in (self.sizes if MODELS[model].build else (ONE_SIZE,))]
        return found

    def tuned(self, subject: Subject) -> Subject:
        """The subject whose trials choose the setting."""
        return subject if self.tuned_at is None or subject.size == ONE_SIZE else subject._replace(size=self.tuned_at)

    def rows(self, subject: Subject) -> int:
        """How many trials and final runs a subject gets."""
        finalists = min(self.trials, self.protocol.finalists)
        again = finalists * len(FINALIST_SEEDS) if finalists > 1 else 0
        trials = self.trials + again if MODELS[subject.model].space else 1
        return self.seeds + (trials if self.tuned(subject) == subject and subject not in self.settings else 0)


def run_group(plan: Plan, group: list[Subject], subjects: list[Subject]) -> None:
    """Make every trial and final run that is not there yet, of subjects that take their setting from the same trials."""
    work, dataset = Work(plan.root, plan.protocol), plan.load(group[0].data)
    clock = Clock(work, {each: plan.rows(each) for each in subjects})

    def tell(line: str) -> None:
        print(f"{line}; {clock.left()}", flush=True)

    tuned = plan.tuned(group[0])
    with deterministic(1):
        if tuned in plan.settings:
            chosen: Mapping[str, Any] = {"setting": plan.settings[tuned]}
        else:
            chosen = tune(work, tuned, dataset, plan.trials, tell, plan.trial_every)
        for subject in group:
            final_runs(work, subject, dataset, chosen, plan.seeds, tell)


def run(plan: Plan, workers: int) -> list[str]:
    """All subjects of the plan; returns what failed, in words. A model that fails does not stop the others."""
    subjects, groups, failed = plan.subjects(), dict[Subject, list[Subject]](), list[str]()
    for subject in subjects:
        groups.setdefault(plan.tuned(subject), []).append(subject)
    if workers == 1:
        for tuned, group in groups.items():
            _attempt(tuned, lambda group=group: run_group(plan, group, subjects), failed)
        return failed
    context = multiprocessing.get_context("spawn")
    with one_thread_in_new_processes(), ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_the_command) as pool:
        futures = {pool.submit(run_group, plan, group, subjects): tuned for tuned, group in groups.items()}
        for future in as_completed(futures):
            _attempt(futures[future], future.result, failed)
    return failed


def end_with_the_command() -> None:
    """End this process when the one that started it ends, even if that is killed: nobody would read its results."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def one_thread_in_new_processes() -> Iterator[None]:
    """Sets OMP_NUM_THREADS, which libraries read when they are loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


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
