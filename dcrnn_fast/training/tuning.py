"""Searches for a setting that does better on the validation rows than the defaults: :func:`tune`. Needs the extra ``tune``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from ..data import PackedDataset
from ..errors import CheckpointError, ConfigError, RunFolderError, TrainingDivergedError, check_installed, shown
from ..support import strict_json
from ..support.checks import check_count
from ..support.files import path_of, scratch_folder
from ..support.locks import locked
from ..support.torchrun import place
from .config import RunConfig, describe_differences, flat, load_config, located, read_config
from .data import prepare_data
from .evaluate.metrics import mean_over_tasks
from .folder.run_files import run_folder_errors, write_file, write_json
from .loop.progress import Report
from .run import train

SPACE: dict[str, list[Any]] = {
    "optimiser.lr": ["Float", 1e-3, 2e-2, True], "optimiser.weight_decay": ["Float", 1e-3, 3.0, True],
    "optimiser.epochs": ["Categorical", [None, 1, 2, 4, 8, 16, 32]], "oov_dropout": ["Categorical", ["auto", 0.25, 1.0]],
    "model.dropout": ["Float", 0.0, 0.5], "model.steps": ["Categorical", [1, 2, 3]],
    "model.rank": ["Categorical", [16, 32, 64]], "model.share_ratio": ["Categorical", [0.25, 0.5, 0.75]],
    "model.first_order": ["Categorical", [False, True]], "model.tower_dims": ["Categorical", [[32, 16], [64, 32], [128, 64]]],
    "loss.weighting": ["Categorical", ["fixed", "uncertainty"]],
}  # fmt: skip
"""The keys, each with its distribution by optuna's name and arguments: low, high, and whether by the logarithm."""
FINALISTS, SEEDS = 3, 3
"""The best trials that train with other seeds, as one seed chooses by luck; and the seeds of each."""
TRIALS, RESULT, LOCK, HALF_WRITTEN = "trials.json", "tuned.yaml", ".lock", ".*.tmp"
"""What the folder may hold. A trial has its ``setting`` and, for each seed so far, its ``losses``: None where the run diverged."""
AGAIN = "start the same command again"


def tune(config: RunConfig, output: str | Path, *, trials: int = 30, report: Report | None = None) -> dict[str, Any]:
    """Search :data:`SPACE` for the setting that is best on the validation rows, by optuna's TPE, and write it to ``tuned.yaml``.

    Keys to which ``config`` gives a value are not searched, nor keys without effect. The first of at least two ``trials`` is the defaults.
    It and the best ones train with two more seeds, and the best mean decides. No trial reads a test row. ``output``, a new folder, keeps
    what each run found: the same call goes on after it, to the same result.
    ``report`` is shown the first trial, and told a line for each run.

    Returns the best ``trial``, by number; its ``setting``; its ``losses`` by seed and those of the ``defaults``, which are means over the
    tasks of ``early_stopping.monitor``, negative for "auc", None where a run diverged; and ``summary``, lines of text.
    Raises DcrnnFastError that says what to change.
    """
    check_count("trials", trials, 2)
    if not isinstance(config, RunConfig):
        raise TypeError(f"config={shown(config)}: expected a RunConfig, got {type(config).__name__}")
    check_installed("tune", "tune", ("optuna",))
    if config.init is not None or place():
        raise ConfigError("tune trains new models in one process: leave init out, and start it without torchrun")
    root, report = path_of("output", output), report or Report()
    config = located(config)
    data = prepare_data(config, progress=report.preparing)
    data = replace(data, splits={name: rows for name, rows in data.splits.items() if name != "test"})
    values = dict(flat(config.to_dict()))
    search: dict[str, Any] = {"config": config.to_dict(), "space": _space(config, data.meta.tasks), "data": data.meta.digest}
    with _locked(root):
        rows = _read(root / TRIALS, search, trials)
        while (at := _next(rows, trials)) is not None:
            if at == len(rows):
                rows.append({"setting": _propose(search["space"], rows, values), "losses": []})
            row = rows[at]
            run = load_config(None, values | row["setting"] | {"seed": (config.seed + len(row["losses"])) % 2**32})
            row["losses"].append(_train(run, data, report if len(rows) == 1 else None))
            write_json(root / TRIALS, {"search": search, "trials": rows}, AGAIN)
            report.note(f"trial {at + 1}/{trials}, seed {run.seed}: valid {run.monitored} {_in_words(row['losses'][-1:])}")
        best = min(_finalists(rows), key=lambda at: _mean(rows[at]["losses"]))  # of equal ones the earliest
        if _mean(rows[best]["losses"]) == inf:
            raise TrainingDivergedError("all of the best trials diverged; set a lower optimiser.lr, and choose another --output")
        tuned = load_config(None, values | rows[best]["setting"])
        write_file(root / RESULT, tuned.to_yaml().encode(), AGAIN)
    return {"trial": best + 1, **rows[best], "defaults": rows[0]["losses"], "summary": _summary(rows, best, config, tuned)}


def _space(config: RunConfig, tasks: tuple[str, ...]) -> dict[str, list[Any]]:
    """The keys of :data:`SPACE` but those that are set, and those without effect or that another key excludes."""
    left_out = {key for key, _ in flat(config.model_dump(exclude_unset=True))}
    if len(tasks) == 1 and config.model.sharing == "rows":
        left_out.add("model.share_ratio")
    if config.loss.task_weight is not None or len(tasks) == 1:
        left_out.add("loss.weighting")
    if left_out >= SPACE.keys():
        raise ConfigError(f"the configuration sets all keys that tune searches, {', '.join(SPACE)}; leave some of them out")
    return {key: distribution for key, distribution in SPACE.items() if key not in left_out}


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Make the folder of a search, or enter that of one that goes on, and keep other processes out for the block."""
    with ExitStack() as stack:
        with run_folder_errors(root, AGAIN):
            root.mkdir(parents=True, exist_ok=True)
            for path in sorted(root.iterdir()):
                if not any(path.match(name) for name in (TRIALS, RESULT, LOCK, HALF_WRITTEN)):
                    raise RunFolderError(f"{root} holds {path.name}, which is of no search; choose another --output")
            if not stack.enter_context(locked(root / LOCK)):
                raise RunFolderError(f"another process writes to {root} now; wait until it has ended, or choose another --output")
        yield


def _read(path: Path, search: dict[str, Any], trials: int) -> list[dict[str, Any]]:
    """The trials so far."""
    if not path.exists():
        return []
    try:
        kept: dict[str, Any] = strict_json.load(path)
        rows: list[dict[str, Any]] = kept["trials"]
        before = read_config(kept["search"]["config"], str(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read ({error!r}); delete it, or choose another --output") from error
    if kept["search"] != search:
        changed = describe_differences(before, read_config(search["config"], "config")) or "other rows or keys"
        raise ConfigError(f"{path} is of another search: {changed}; choose another --output")
    if len(rows) > trials:
        raise ConfigError(f"trials={trials}: {path} holds {len(rows)}; give at least as many, or choose another --output")
    return rows


def _next(rows: list[dict[str, Any]], trials: int) -> int | None:
    """The place of the trial to train next: of a new one, or of a finalist that lacks a seed. None at the end."""
    if len(rows) < trials:
        return len(rows)
    return next((at for at in _finalists(rows) if len(rows[at]["losses"]) < SEEDS), None)


def _finalists(rows: list[dict[str, Any]]) -> list[int]:
    """The places of the defaults and of the trials that are best with the first seed."""
    best = sorted(range(len(rows)), key=lambda at: _mean(rows[at]["losses"][:1]))
    return sorted({0, *best[:FINALISTS]})


def _propose(space: dict[str, Any], rows: list[dict[str, Any]], defaults: dict[str, Any]) -> dict[str, Any]:
    """The next setting. It follows from the earlier trials and the seed alone, so a search that was stopped goes on alike."""
    if not rows:
        return {key: defaults[key] for key in space}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna could not store lists in a database
        drawn = {key: getattr(optuna.distributions, f"{kind}Distribution")(*rest) for key, (kind, *rest) in space.items()}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=(defaults["seed"] + len(rows)) % 2**32))
    for row in rows:
        study.add_trial(optuna.trial.create_trial(params=row["setting"], distributions=drawn, value=_mean(row["losses"][:1])))
    found = study.ask(drawn).params
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in found.items()}


def _train(config: RunConfig, data: PackedDataset, report: Report | None) -> float | None:
    """The loss of a run on the validation rows; None if it diverged."""
    try:
        with scratch_folder() as scratch:
            found = train(config, scratch / "run", dataset=data, report=report)["valid"]
            mean: Any = mean_over_tasks(found, config.monitored, data.meta.tasks)
    except TrainingDivergedError:
        return None
    except OSError as error:
        raise RunFolderError(f"a trial cannot write: {error.__cause__ or error}; make room, or set TMPDIR, and {AGAIN}") from error
    return mean if config.early_stopping.monitor == "log_loss" else -mean


def _mean(losses: list[float | None]) -> float:
    return fmean(inf if loss is None else loss for loss in losses)


def _in_words(losses: list[float | None]) -> str:
    return "diverged" if None in losses else f"{abs(_mean(losses)):.5f}"


def _summary(rows: list[dict[str, Any]], best: int, config: RunConfig, tuned: RunConfig) -> list[str]:
    judged_by = f"mean {config.monitored} of {SEEDS} seeds on the validation rows"
    if best == 0:
        return [f"No trial has a better {judged_by} than the defaults: these are the result"]
    losses, defaults = rows[best]["losses"], rows[0]["losses"]
    lines = [f"The {judged_by} is {_in_words(losses)} by trial {best + 1}, {_in_words(defaults)} by the defaults"]
    if None not in defaults:
        gain, spread = _mean(defaults) - _mean(losses), max(max(losses) - min(losses), max(defaults) - min(defaults))
        verdict = "is more" if gain > spread else "may be luck"
        lines.append(f"Seeds of one setting differ by up to {spread:.5f}: the gain of {gain:.5f} {verdict}")
    return [*lines, f"The setting of trial {best + 1}: {describe_differences(config, tuned)}"]
