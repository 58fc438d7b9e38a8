"""Tuning: the same number of trials for every model, by optuna's TPE sampler, judged by validation rows alone."""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.errors import ConfigError

from .data_sets import thin_train, without_test
from .models import MODELS
from .protocol import fit, metrics, score
from .spaces import WHOLE, Choice, Space, defaults
from .work import Subject, Work

TUNING_SEED = 0
"""Of the trials. The final runs have the seeds from 1 on."""
FINALIST_SEEDS = (1001, 1002)
"""With which the best trials train again, since one seed alone chooses by luck."""
RANDOM_TRIALS = 7
"""Trials before the sampler learns from the earlier ones; trial 0 is the defaults."""
WORST = 1e6
"""What the sampler is told of a run that diverged."""


def propose(space: Space, earlier: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """The setting of the next trial. It depends on the earlier rows and on ``key`` alone, so a resumed search goes on as it would have."""
    if not earlier:
        return defaults(space)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = zlib.crc32(f"{key}, trial {len(earlier)}".encode())
    sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS + 1, seed=seed)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    drawn = {name: _distribution(name, part) for name, part in space.items()}
    for row in earlier:
        value = WORST if row["valid"]["log_loss"] is None else row["valid"]["log_loss"]
        study.add_trial(optuna.trial.create_trial(params=dict(row["setting"]), distributions=drawn, value=value))
    return study.ask(fixed_distributions=drawn).params


def _distribution(name: str, part: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(part, Choice):
        return CategoricalDistribution(part.values)
    if name in WHOLE:
        return IntDistribution(int(part.low), int(part.high), log=part.log)
    return FloatDistribution(part.low, part.high, log=part.log)


def best(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The trials with the lowest log loss on the validation rows, the earliest of equal ones first; no diverged one.

    Raises ConfigError if all diverged.
    """
    ranked = sorted((row for row in rows if row["valid"]["log_loss"] is not None), key=_log_loss)
    if not ranked:
        raise ConfigError(f"{rows[0]['data']}, {rows[0]['model']}: no trial has a log_loss on the validation rows")
    return ranked[:count]


def _log_loss(row: Mapping[str, Any]) -> float:
    """Infinite where training diverged."""
    value = row["valid"]["log_loss"]
    return math.inf if value is None else value


def tune(
    work: Work, subject: Subject, dataset: PackedDataset, trials: int, tell: Callable[[str], None], every: int = 1
) -> Mapping[str, Any]:
    """Make the trials that are not there yet, train the best ones again, and return the row of the best one by the mean.

    They train on every ``every``-th train row, and are judged by all validation rows.
    """
    space, seen = MODELS[subject.model].space, thin_train(without_test(dataset), every)

    def row_of(name: str, setting: Mapping[str, Any] | None, seed: int, about: dict[str, Any]) -> dict[str, Any]:
        row = work.read(subject, name, dataset.meta.digest)
        if row is not None and setting in (None, row["setting"]) and row.get("every", 1) == every:
            return row
        setting = propose(space, rows, str(subject)) if setting is None else setting
        fitted = fit(subject.model, seen, setting, seed=seed, size=subject.size, protocol=work.protocol)
        found = about | {"setting": setting, "every": every, "valid": score(fitted, seen)}
        row = work.write(subject, name, dataset.meta.digest, found | _told(fitted))
        tell(f"{subject}, {name}: {_shown(row['valid'])}, {row['seconds']:.0f} s")
        return row

    rows: list[dict[str, Any]] = []
    for number in range(trials if space else 1):
        rows.append(row_of(f"trial-{number:03d}", None, TUNING_SEED, {"trial": number}))
    finalists = best(rows, work.protocol.finalists)
    if len(finalists) == 1:
        return finalists[0]
    means = []
    for finalist in finalists:
        number, setting = finalist["trial"], finalist["setting"]
        again = [row_of(f"trial-{number:03d}-seed-{seed}", setting, seed, {"trial": number, "seed": seed}) for seed in FINALIST_SEEDS]
        means.append(statistics.fmean(map(_log_loss, [finalist, *again])))
    return finalists[means.index(min(means))]


def final_runs(
    work: Work, subject: Subject, dataset: PackedDataset, chosen: Mapping[str, Any], seeds: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Train the chosen setting with every seed, and read the test rows once for each."""
    rows = []
    for seed in range(1, seeds + 1):
        name, digest = f"seed-{seed}", dataset.meta.digest
        row = work.read(subject, name, digest)
        if row is None or row["setting"] != chosen["setting"]:
            fitted = fit(subject.model, without_test(dataset), chosen["setting"], seed=seed, size=subject.size, protocol=work.protocol)
            logits = fitted.logits(dataset.split("test"))
            if not np.isfinite(logits).all():
                raise ConfigError(f"{subject}, seed {seed}: the chosen setting diverged; its logits are not finite")
            found = {"seed": seed, "setting": chosen["setting"], "valid": score(fitted, dataset), "test": metrics(dataset, "test", logits)}
            row = work.write(subject, name, digest, found | _told(fitted) | {"parameters": fitted.parameters}, logits)
            tell(f"{subject}, seed {seed} of {seeds}: {_shown(row['valid'])}, {row['seconds']:.0f} s")
        rows.append(row)
    return rows


def _told(fitted: Any) -> dict[str, Any]:
    losses = [loss if math.isfinite(loss) else None for _, loss in fitted.history]
    best = min(fitted.history, key=lambda entry: entry[1])[0]
    return {"seconds": round(fitted.seconds, 2), "steps": fitted.history[-1][0], "best_step": best, "history": losses}


def _shown(valid: Mapping[str, float | None]) -> str:
    return ", ".join(f"validation {name.replace('_', ' ')} {'-' if value is None else f'{value:.5f}'}" for name, value in valid.items())
