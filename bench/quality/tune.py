"""Tunes a subject on validation rows alone, by optuna's TPE sampler, then trains the chosen setting and reads the test rows once a run.

The work folder has optuna's journal, the result and the test logits of each subject, by a name that depends on the protocol, the rows and
the search space: a killed command goes on where it was.
"""

from __future__ import annotations

import json
import math
import statistics
import traceback
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.errors import ConfigError, DcrnnFastError
from dcrnn_fast.support import files
from dcrnn_fast.training.device import deterministic

from ..processes import processes
from . import data_sets
from .data_sets import without_test
from .models import MODELS, ONE_SIZE, TUNED_SIZE, WHOLE, Subject, defaults, fits
from .networks import Setting
from .protocol import Protocol, fit, metrics, score

TUNING_SEED, FINALIST_SEEDS = 0, (1001, 1002)
"""Of the trials, and of the runs that choose among the best trials, since one seed alone chooses by luck. Final runs count from 1."""
RANDOM_TRIALS = 8
"""Trials before the sampler learns from the earlier ones; trial 0 is the defaults."""
WORST = 1e6
"""What the sampler is told of a run that diverged."""
METRICS = ("auc", "gauc", "log_loss", "calibration")


@dataclass(frozen=True)
class Plan:
    """What a command asks for."""

    root: Path
    data: tuple[str, ...]
    models: tuple[str, ...]
    size: str = TUNED_SIZE
    trials: int = 20
    seeds: int = 5
    protocol: Protocol = field(default_factory=Protocol)
    movielens: Path | None = None
    settings: Mapping[Subject, Setting] = field(default_factory=dict)
    """Of subjects that get no trials."""

    def load(self, data: str) -> PackedDataset:
        """The packed data set."""
        return data_sets.load(data, self.root, movielens=self.movielens, thin=self.protocol.thin)

    def subjects(self) -> list[Subject]:
        """Every model on each data set that it fits. Raises ConfigError for a size without a setting: the tuned size chooses it."""
        found = []
        for data in self.data:
            meta = self.load(data).meta
            for model in (name for name in self.models if fits(name, meta)):
                if MODELS[model].build or self.size == TUNED_SIZE:
                    found.append(Subject(data, model, self.size if MODELS[model].build else ONE_SIZE))
        if self.size != TUNED_SIZE and (lacking := [str(each) for each in found if each not in self.settings]):
            raise ConfigError(f"--size {self.size} takes the settings of {TUNED_SIZE}, and the report lacks {'; '.join(lacking)}")
        return found

    def path(self, subject: Subject, dataset: PackedDataset) -> Path:
        """Where a subject's files are, without a suffix."""
        about = [dataset.meta.digest, asdict(self.protocol), self.seeds, MODELS[subject.model].space]
        about += [self.settings[subject]] if subject in self.settings else [self.trials]
        return self.root / f"{'-'.join(subject)}-{zlib.crc32(repr(about).encode()):08x}"


def tune(plan: Plan, subject: Subject, dataset: PackedDataset) -> Setting:
    """The setting of the trial with the lowest mean validation log loss among the best, which train again with more seeds."""
    space, seen = MODELS[subject.model].space, without_test(dataset)
    if plan.trials == 1 or not space:
        return defaults(space)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def loss(setting: Setting, seed: int) -> float:
        found = score(fit(subject.model, seen, setting, seed=seed, size=subject.size, protocol=plan.protocol), seen)["log_loss"]
        return WORST if found is None else found

    backend = optuna.storages.journal.JournalFileBackend(f"{plan.path(subject, dataset)}.journal")
    study = optuna.create_study(study_name="trials", storage=optuna.storages.JournalStorage(backend), load_if_exists=True)
    drawn = {name: _distribution(name, part) for name, part in space.items()}
    while len(done := study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) < plan.trials:
        seed = zlib.crc32(f"{subject}, trial {len(done)}".encode())  # so that a killed search goes on as it would have
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
        if not done:
            study.enqueue_trial(defaults(space))
        trial = study.ask(drawn)
        study.tell(trial, loss(trial.params, TUNING_SEED))
        print(f"{subject}, trial {len(done) + 1} of {plan.trials}", flush=True)
    finalists = best([trial.value for trial in done], plan.protocol.finalists)
    means = []
    for at in finalists if len(finalists) > 1 else []:
        for key, seed in ((f"{at}, {seed}", seed) for seed in FINALIST_SEEDS):
            if key not in study.user_attrs:
                study.set_user_attr(key, loss(done[at].params, seed))
        means.append(statistics.fmean([done[at].value, *(study.user_attrs[f"{at}, {seed}"] for seed in FINALIST_SEEDS)]))
    return done[finalists[means.index(min(means))] if means else finalists[0]].params


def _distribution(name: str, part: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in part:
        return CategoricalDistribution(part["values"])
    return (IntDistribution if name in WHOLE else FloatDistribution)(part["low"], part["high"], log=part.get("log", False))


def best(losses: Sequence[float], count: int) -> list[int]:
    """The places of the lowest losses, the earliest of equal ones first; none that diverged. Raises ConfigError if all did."""
    ranked = sorted((at for at, loss in enumerate(losses) if loss < WORST), key=losses.__getitem__)
    if not ranked:
        raise ConfigError("no trial has a log_loss on the validation rows")
    return ranked[:count]


def final_runs(plan: Plan, subject: Subject, dataset: PackedDataset, setting: Setting) -> tuple[dict[str, Any], np.ndarray]:
    """Train a setting with every seed: a row of the report, whose lists have a value a seed, and the test logits [S, N, T]."""
    tasks, logits, own = dataset.meta.tasks, [], []
    for seed in range(1, plan.seeds + 1):
        fitted = fit(subject.model, without_test(dataset), setting, seed=seed, size=subject.size, protocol=plan.protocol)
        logits.append(fitted.logits(dataset.split("test")))
        if not np.isfinite(logits[-1]).all():
            raise ConfigError(f"{subject}, seed {seed}: the chosen setting diverged; its logits are not finite")
        own.append((metrics(dataset, "test", logits[-1]), score(fitted, dataset), fitted))
        print(f"{subject}, seed {seed} of {plan.seeds}: {own[-1][1]}, {fitted.seconds:.0f} s", flush=True)
    test = {
        task: {name: [_rounded(found[task].get(name)) for found, _, _ in own] for name in METRICS if own[0][0][task].get(name) is not None}
        for task in tasks
    }
    return {
        **subject._asdict(),
        "setting": dict(setting),
        "parameters": own[0][2].parameters,
        "test": test,
        "valid": {name: [_rounded(valid[name]) for _, valid, _ in own] for name in ("auc", "log_loss")},
        "seconds": [round(fitted.seconds, 1) for _, _, fitted in own],
        "steps": [fitted.history[-1][0] for _, _, fitted in own],
    }, np.stack(logits).astype(np.float32)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 9)


def complete(plan: Plan, subject: Subject) -> str:
    """Tune and train a subject whose result is not there yet. Returns what failed, in words: the other subjects go on."""
    dataset = plan.load(subject.data)
    path = plan.path(subject, dataset)
    if path.with_suffix(".json").is_file():
        return ""
    try:
        with deterministic(1):
            setting = plan.settings.get(subject) or tune(plan, subject, dataset)
            row, logits = final_runs(plan, subject, dataset, setting)
    except Exception as error:
        if not isinstance(error, DcrnnFastError):
            traceback.print_exc()
        return f"{subject}: {type(error).__name__}: {error}"
    np.save(path.with_suffix(".npy"), logits)
    files.write_text(path.with_suffix(".json"), json.dumps(row))
    return ""


def run(plan: Plan, workers: int) -> list[str]:
    """All subjects of the plan; what failed, in words."""
    subjects = plan.subjects()  # which loads, and so writes, every data set before other processes read it
    with processes(workers) as over:
        return [words for words in over(partial(complete, plan), subjects) if words]
