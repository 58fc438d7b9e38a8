"""``make quality`` or ``python -m bench.quality``: tunes, trains, tests and times every model by one protocol.

docs/evidence/quality.md describes it.

A killed command goes on where it was: give the same --work.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import machine, results
from dcrnn_fast.errors import ConfigError, DcrnnFastError
from dcrnn_fast.support import files
from dcrnn_fast.training.device import deterministic

from . import data_sets, extension, plots, report, speed
from .models import MODELS, check
from .networks import SIZES
from .protocol import Protocol
from .runner import Plan, finished, run
from .work import Work

QUICK = Protocol(batch_size=64, evaluations=2, warmup_steps=2, thin=32, max_steps=4, max_rounds=3)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = _at_least(1)
    made.add_argument("--data", nargs="+", choices=data_sets.NAMES, help="default: all; MovieLens-100K only with --movielens")
    made.add_argument("--models", nargs="+", metavar="MODEL", help=f"default: all of {', '.join(MODELS)}")
    made.add_argument("--sizes", nargs="+", choices=SIZES, default=["medium"], help="widths of all networks; several give curves")
    made.add_argument("--tuned-at", choices=SIZES, help="all sizes take the setting chosen at this one; default: each size is tuned")
    made.add_argument(
        "--extend", type=Path, metavar="REPORT", help="an earlier quality.json: its settings replace trials, and its results stay"
    )
    made.add_argument("--trials", type=count, default=20, help="tuning trials of each model and data set")
    made.add_argument("--trial-every", type=count, default=1, metavar="N", help="trials train on every N-th train row; final runs on all")
    made.add_argument("--seeds", type=count, default=5, help="final runs of the chosen setting")
    made.add_argument("--movielens", type=Path, help="the RecBole wheel, which holds MovieLens-100K")
    made.add_argument("--work", type=Path, default=Path("runs/quality"), help="folder of the trials and runs; the reports go there too")
    made.add_argument("--workers", type=count, default=os.cpu_count(), help="processes that train at the same time, one thread each")
    made.add_argument("--resamples", type=_at_least(0), default=1000, help="of the test rows, for the bootstrap")
    made.add_argument("--seconds", type=float, default=20.0, help="how long each of the six speeds of a data set is measured")
    made.add_argument("--no-speeds", action="store_true", help="leave out the costs, for example on a busy machine, and the figures")
    made.add_argument("--report", default="quality", metavar="NAME", help="of the reports' files (default: quality)")
    made.add_argument("--record", action="store_true", help="write the results to bench/results/ too")
    made.add_argument("--quick", action="store_true", help="each model once, for a few steps on a part of hillstrom: does it run?")
    return made


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text}: expected at least {least}")
        return value

    return whole_number


def plan_of(given: argparse.Namespace) -> Plan:
    """What the arguments ask for. The default leaves out models whose package is not installed, and MovieLens-100K, and says so."""
    models = given.models
    if models is None:
        models = [name for name, model in MODELS.items() if model.installed]
        if len(models) < len(MODELS):
            print(f"without {', '.join(MODELS.keys() - set(models))}: run pip install 'dcrnn_fast[quality]'", flush=True)
    check(models)
    data = given.data
    if data is None:
        data = [name for name in data_sets.NAMES if name != "movielens-100k" or given.movielens]
        if not given.movielens:
            print("without MovieLens-100K: --movielens gives the RecBole wheel, which holds it", flush=True)
    if given.trials > 1 and not given.quick and find_spec("optuna") is None:
        raise ConfigError("--trials above 1 need optuna: run pip install 'dcrnn_fast[quality]'")
    plan = Plan(
        given.work, tuple(data), tuple(models), tuple(given.sizes), given.trials, given.seeds, Protocol(), given.tuned_at, given.movielens,
        given.trial_every,
    )  # fmt: skip
    if given.extend is None:
        return plan
    if given.quick:
        raise ConfigError("--quick trains a few steps that no report can keep: leave out --extend")
    earlier = extension.read(given.extend, plan.protocol)
    return dataclasses.replace(plan, settings=extension.settings(earlier))


def quick(plan: Plan, folder: Path) -> Plan:
    """The same models once, for a few steps on a part of one embedded set."""
    return dataclasses.replace(plan, root=folder, data=("hillstrom",), sizes=("medium",), trials=1, seeds=2, protocol=QUICK, tuned_at=None)


def gather(plan: Plan, resamples: int, seconds: float | None) -> dict[str, Any]:
    """The results of all finished subjects; the costs are measured here and now, unless ``seconds`` is None."""
    work = Work(plan.root, plan.protocol)
    rows, chosen, runs, speeds = [], [], [], []

    def tell(line: str) -> None:
        print(line, flush=True)

    for data in plan.data:
        dataset = plan.load(data)
        done = finished(plan, work, data, dataset.meta.digest)
        rows += report.summarise(done, dataset, work, resamples, tell, plan.tuned_at)
        left_out = ("digest", "space", "history", "setting", "parameters")
        runs += [{key: value for key, value in run.items() if key not in left_out} for of_subject in done.values() for run in of_subject]
        settings = {subject: of_subject[0]["setting"] for subject, of_subject in done.items()}
        for subject, setting in settings.items():
            of_trials = {} if subject in plan.settings else {"trial_every": plan.trial_every}
            chosen.append({**subject._asdict(), **of_trials, "setting": setting})
        if seconds is not None:
            kept = {subject: setting for subject, setting in plan.settings.items() if subject.data == data}
            speeds += speed.measure(kept | settings, dataset, plan.protocol, seconds, tell)
    spaces = {name: {key: part._asdict() for key, part in MODELS[name].space.items()} for name in plan.models}
    about = {"trials": plan.trials, "seeds": plan.seeds, "tuned_at": plan.tuned_at, "resamples": resamples}
    return {
        "machine": machine.description(),
        "protocol": about | dataclasses.asdict(plan.protocol),
        "spaces": spaces,
        "chosen": chosen,
        "rows": rows,
        "speeds": speeds,
        "runs": runs,
    }


def write(result: dict[str, Any], folder: Path, name: str) -> None:
    """The reports that bench/results/ has too."""
    results.write(folder / f"{name}.json", result)
    files.write_text(folder / f"{name}.md", f"# Every size and task: `{name}`\n\n{report.as_markdown(result)}\n")
    if result["speeds"]:
        plots.draw_distances(result, folder / f"{name}_auc.svg")
        plots.draw_costs(result, folder / f"{name}_training.svg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 if a model failed, 2 after an error that the user can correct."""
    given = parser().parse_args(arguments)
    try:
        plan = plan_of(given)
        if given.quick:
            with tempfile.TemporaryDirectory() as folder, deterministic(1):
                return _run(quick(plan, Path(folder)), given, workers=1, resamples=10, seconds=0.0)
        return _run(plan, given, workers=given.workers, resamples=given.resamples, seconds=None if given.no_speeds else given.seconds)
    except DcrnnFastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(plan: Plan, given: argparse.Namespace, *, workers: int, resamples: int, seconds: float | None) -> int:
    Work(plan.root, plan.protocol)
    failed = run(plan, workers)
    result = gather(plan, resamples, seconds)
    if plan.settings:
        result = extension.extended(extension.read(given.extend, plan.protocol), result)
    write(result, plan.root, given.report)
    print(report.as_markdown(result))
    if given.record and not given.quick:
        write(result, results.COMMITTED, given.report)
    if not given.quick:
        print(f"written to {plan.root}/{given.report}.*" + (f" and {results.COMMITTED}" if given.record else ""))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
