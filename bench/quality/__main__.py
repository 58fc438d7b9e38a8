"""``make quality`` or ``python -m bench.quality``: tunes, trains, tests and times every model by one protocol.

docs/evidence/quality.md describes it. The report keeps the results of models that this command does not train. A killed command goes on
where it was: give the same --work.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine, results
from dcrnn_fast.errors import ConfigError, DcrnnFastError
from dcrnn_fast.training.device import deterministic

from . import data_sets, report, speed
from .differences import over_rows
from .models import AGAINST, MODELS, TUNED_SIZE, Subject
from .networks import SIZES
from .protocol import Protocol, constant_scores
from .tune import Plan, run

QUICK = Protocol(batch_size=64, evaluations=2, warmup_steps=2, thin=32, max_steps=4, max_rounds=3)
RESAMPLES = 1000
"""Of the test rows, for the bootstrap."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", nargs="+", choices=data_sets.NAMES, help="default: all; MovieLens-100K only with --movielens")
    made.add_argument("--models", nargs="+", metavar="MODEL", help=f"default: all of {', '.join(MODELS)}")
    made.add_argument("--size", choices=SIZES, default=TUNED_SIZE, help=f"of all networks; all take the settings of {TUNED_SIZE}")
    made.add_argument("--trials", type=int, default=20, help="tuning trials of each model and data set; 1: the defaults")
    made.add_argument("--seeds", type=int, default=5, help="final runs of the chosen setting")
    made.add_argument("--movielens", type=Path, help="the RecBole wheel, which holds MovieLens-100K")
    made.add_argument("--work", type=Path, default=Path("runs/quality"), help="folder of the trials and runs; the report goes there too")
    made.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that train at the same time, one thread each")
    made.add_argument("--seconds", type=float, default=20.0, help="how long each of the four costs of a data set is measured")
    made.add_argument("--no-speeds", action="store_true", help="leave out the costs, for example on a busy machine")
    made.add_argument("--report", default="quality", metavar="NAME", help="of the report's file (default: quality)")
    made.add_argument("--record", action="store_true", help="the report is that of bench/results/")
    made.add_argument("--quick", action="store_true", help="each model once, for a few steps on a part of hillstrom: does it run?")
    return made


def plan_of(given: argparse.Namespace, before: dict[str, Any]) -> Plan:
    """What the arguments ask for. The default leaves out MovieLens-100K, and says so."""
    models = given.models or list(MODELS)
    if unknown := [name for name in models if name not in MODELS]:
        raise ConfigError(f"--models {' '.join(unknown)}: expected {', '.join(MODELS)}")
    data = given.data or [name for name in data_sets.NAMES if name != "movielens-100k" or given.movielens]
    if not given.data and not given.movielens:
        print("without MovieLens-100K: --movielens gives the RecBole wheel, which holds it", flush=True)
    settings = {report.subject_of(row)._replace(size=given.size): row["setting"] for row in before["rows"] if row["size"] == TUNED_SIZE}
    return Plan(
        given.work, tuple(data), tuple(models), given.size, given.trials, given.seeds, movielens=given.movielens,
        settings=settings if given.size != TUNED_SIZE else {},
    )  # fmt: skip


def earlier(path: Path, protocol: Protocol) -> dict[str, Any]:
    """The report at ``path``, or an empty one. Raises ConfigError if another protocol made it: the results could not be compared."""
    now = json.loads(json.dumps(asdict(protocol)))
    empty = {"machine": machine.description(), "protocol": now, "constant": {}, "rows": []}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else empty
    if changed := [f"{key} was {before['protocol'].get(key)!r} and is {value!r}" for key, value in now.items()
                   if before["protocol"].get(key) != value]:  # fmt: skip
        raise ConfigError(f"{path} was made by another protocol: {'; '.join(changed)}; choose another --report")
    return before


def gather(plan: Plan, before: dict[str, Any], resamples: int, seconds: float | None) -> dict[str, Any]:
    """The report with all finished subjects; a subject that it has already is replaced. Costs are measured here and now, unless
    ``seconds`` is None: those of all models of these data sets, and those that another machine measured leave.
    """
    rows = {report.subject_of(row): row for row in before["rows"]}
    here, constant = machine.description(), dict(before["constant"])
    if seconds is not None and before["machine"] != here:
        rows = {subject: {key: value for key, value in row.items() if key != "speed"} for subject, row in rows.items()}
    for data in plan.data:
        dataset, logits = plan.load(data), dict[Subject, np.ndarray]()
        for subject in (each for each in plan.subjects() if each.data == data):
            path = plan.path(subject, dataset)
            if path.with_suffix(".json").is_file():
                rows[subject] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                logits[subject] = np.load(path.with_suffix(".npy"))
        test = dataset.split("test")
        constant[data] = constant_scores(dataset)
        peer = Subject(data, AGAINST, plan.size)
        for at, task in enumerate(dataset.meta.tasks if peer in logits and resamples else ()):
            scores = {subject: values[:, :, at] for subject, values in logits.items()}
            for subject, bounds in over_rows(np.asarray(test.labels[:, at]), scores, peer, resamples).items():
                rows[subject]["test"][task]["interval"] = [round(bound, 9) for bound in bounds]
        if seconds is not None:
            of_set = {subject: row["setting"] for subject, row in rows.items() if subject.data == data}
            for subject, found in speed.measure(of_set, dataset, plan.protocol.batch_size, seconds).items():
                rows[subject]["speed"] = found
    about = before["protocol"] | {"trials": plan.trials, "seeds": plan.seeds}
    return {
        "machine": here if seconds is not None or not before["rows"] else before["machine"],
        "protocol": about,
        "constant": constant,
        "rows": [rows[subject] for subject in sorted(rows, key=report.place)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 if a model failed, 2 after an error that the user can correct."""
    given = parser().parse_args(arguments)
    path = (results.COMMITTED if given.record else given.work) / f"{given.report}.json"
    try:
        if given.quick:
            with tempfile.TemporaryDirectory() as folder, deterministic(1):
                plan = plan_of(given, earlier(Path(), QUICK))
                plan = replace(plan, root=Path(folder), data=("hillstrom",), trials=1, seeds=2, protocol=QUICK)
                failed = run(plan, 0)
                print(report.as_markdown(gather(plan, earlier(Path(), QUICK), 10, 0.0)))
        else:
            before = earlier(path, Protocol())
            plan = plan_of(given, before)
            plan.root.mkdir(parents=True, exist_ok=True)
            failed = run(plan, given.workers)
            result = gather(plan, before, RESAMPLES, None if given.no_speeds else given.seconds)
            results.write(path, result)
            print(f"{report.as_markdown(result)}\n\nwritten to {path}")
    except DcrnnFastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
