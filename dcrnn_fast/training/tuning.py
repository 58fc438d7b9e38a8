"""Searches for a setting that does better on the validation rows than the defaults: :func:`tune`. Needs the extra ``tune``."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import CheckpointError, ConfigError, MissingExtra, RunFolderError, TrainingDivergedError
from ..support import strict_json
from ..support.checks import check_count
from ..support.files import path_of, scratch_folder
from ..support.torchrun import place
from .config import RunConfig, describe_differences, flat, load_config, located, read_config
from .data import prepare_data
from .evaluate.metrics import mean_over_tasks
from .folder.run_files import run_folder_errors, write_file, write_json
from .loop.progress import Report
from .run import train

SPACE: dict[str, Any] = {
    "optimiser.lr": ("Float", 1e-3, 2e-2, True), "optimiser.weight_decay": ("Float", 1e-3, 3.0, True),
    "optimiser.embedding_prior": ("Float", 4.0, 1024.0, True), "optimiser.epochs": ("Int", 1, 8, True),
    "oov_dropout": ("Categorical", ["auto", 0.25, 1.0]), "model.dropout": ("Float", 0.0, 0.5), "model.steps": ("Categorical", [1, 2, 3]),
    "model.rank": ("Categorical", [16, 32, 64]), "model.share_ratio": ("Categorical", [0.25, 0.5, 0.75]),
    "model.first_order": ("Categorical", [False, True]), "model.tower_dims": ("Categorical", ["[32, 16]", "[64, 32]", "[128, 64]"]),
    "loss.weighting": ("Categorical", ["fixed", "uncertainty"]),
}  # fmt: skip
"""The keys, each with its distribution by optuna's name and arguments: low, high, and whether by the logarithm."""
FINALISTS, SEEDS, DIVERGED = 3, 3, 1e6
"""The best trials that train with other seeds, as one seed chooses by luck; the seeds of each; and the loss of a run that diverged."""


def tune(config: RunConfig, output: str | Path, *, trials: int = 30, report: Report | None = None) -> dict[str, Any]:
    """Search :data:`SPACE` for the setting that is best on the validation rows, by optuna's TPE, and write it to ``config.yaml``.

    Keys to which ``config`` gives a value are not searched. The first of at least two ``trials`` is the defaults. It and the best ones
    train with two more seeds, and the best mean decides. No trial reads a test row. ``output``, a new folder, keeps a file for each run:
    the same call goes on after them, to the same result. ``report`` is shown the first trial, and told a line for each.

    Returns the best ``trial``, by number; its ``setting``; its ``losses`` by seed and those of the ``defaults``, which are means over the
    tasks of ``early_stopping.monitor``, negative for "auc"; and ``summary``, lines of text. Raises DcrnnFastError that says what to change.
    """
    check_count("trials", trials, 2)
    if find_spec("optuna") is None:
        raise MissingExtra("tune needs optuna; run: pip install 'dcrnn_fast[tune]'")
    if config.init is not None or place():
        raise ConfigError("tune trains new models in one process: leave init out, and start it without torchrun")
    config, root, report = located(config), path_of("output", output), report or Report()
    values, fixed, metric = dict(flat(config.to_dict())), dict(flat(config.model_dump(exclude_unset=True))), config.early_stopping.monitor
    bound = {"loss.weighting": config.loss.task_weight, "model.share_ratio": config.model.scenario}  # by keys that may exclude values
    space = {key: part for key, part in SPACE.items() if key not in fixed and not bound.get(key)}
    if not space:
        raise ConfigError(f"the configuration sets all keys that tune searches, {', '.join(SPACE)}; leave some of them out")
    data, rows = prepare_data(config), list[dict[str, Any]]()
    no_rows: dict[str, Any] = {kind: array[:0] for kind, array in vars(data.split("valid")).items() if array is not None}
    data = replace(data, splits={**data.splits, "test": replace(data.split("valid"), **no_rows | {"name": "test"})})
    search = json.loads(json.dumps({"config": config.to_dict(), "space": space, "data": data.meta.digest}))
    with run_folder_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        if (root / "config.yaml").exists() and not any(root.glob("trial-*.json")):
            raise RunFolderError(f"{root} holds a run; choose another --output")

    def run(number: int, nth_seed: int = 0) -> dict[str, Any]:
        seed, loss, shown_to = (config.seed + nth_seed) % 2**32, DIVERGED, None if rows else report
        path = root / f"trial-{number:03d}-seed-{seed}.json"
        if not path.exists():
            setting = rows[number - 1]["setting"] if nth_seed else _propose(space, rows, values, seed)
            with suppress(TrainingDivergedError), scratch_folder() as scratch:
                found = train(load_config(None, values | setting | {"seed": seed}), scratch / "run", dataset=data, report=shown_to)
                loss = mean_over_tasks(found["valid"], metric, data.meta.tasks) * (1 if metric == "log_loss" else -1)  # type: ignore[operator]
            write_json(path, {"setting": setting, "loss": loss, "search": search}, "start the same command again")
            report.note(f"trial {number}/{trials}, seed {seed}: {'diverged' if loss == DIVERGED else f'valid {metric} {abs(loss):.5f}'}")
        return _read(path, search, config)

    for number in range(1, trials + 1):
        rows.append(run(number))
    finalists = sorted(range(trials), key=lambda at: rows[at]["loss"])[:FINALISTS]
    losses = {at: [rows[at]["loss"], *(run(at + 1, nth)["loss"] for nth in range(1, SEEDS))] for at in sorted({0, *finalists})}
    best = min(losses, key=lambda at: fmean(losses[at]))  # of equal ones the earliest
    tuned = load_config(None, values | rows[best]["setting"])
    write_file(root / "config.yaml", tuned.to_yaml().encode())
    mean, start = fmean(losses[best]), fmean(losses[0])
    gain, spread = start - mean, max(max(losses[at]) - min(losses[at]) for at in (best, 0))
    summary = [
        f"Mean {metric} of {SEEDS} seeds on the validation rows: {abs(mean):.5f} by trial {best + 1}, {abs(start):.5f} by the defaults",
        f"Seeds of one setting differ by up to {spread:.5f}: the gain of {gain:.5f} {'is more' if gain > spread else 'may be luck'}",
        f"The setting of trial {best + 1}: {describe_differences(config, tuned)}",
    ]
    if not best:
        summary = [f"No trial has a better mean {metric} of {SEEDS} seeds on the validation rows than the defaults: these are the result"]
    return {"trial": best + 1, "setting": rows[best]["setting"], "losses": losses[best], "defaults": losses[0], "summary": summary}


def _read(path: Path, search: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    try:
        row: dict[str, Any] = strict_json.load(path)
        changed = describe_differences(read_config(row["search"]["config"], str(path)), config) or "other rows or keys"
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read ({error!r}); delete it, or choose another --output") from error
    if row["search"] != search:
        raise ConfigError(f"{path} is of another search: {changed}; choose another --output")
    return row


def _propose(space: dict[str, Any], rows: list[dict[str, Any]], values: dict[str, Any], seed: int) -> dict[str, Any]:
    """The next setting. It follows from the earlier trials and the seed alone, so a search that was stopped goes on alike."""
    if not rows:
        return {key: values[key] for key in space}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = {key: getattr(optuna.distributions, f"{kind}Distribution")(*rest) for key, (kind, *rest) in space.items()}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=(seed + len(rows)) % 2**32))
    for row in rows:
        params = {key: str(value) if isinstance(value, list) else value for key, value in row["setting"].items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=drawn, value=row["loss"]))
    found = {key: json.loads(value) if str(value)[0] == "[" else value for key, value in study.ask(drawn).params.items()}
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in found.items()}
