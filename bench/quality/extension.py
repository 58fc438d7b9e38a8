"""A report that grows: later commands take its settings and keep its results, so that a size or a model is added without new trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dcrnn_fast.errors import ConfigError

from .models import MODELS
from .networks import SIZES, Setting
from .protocol import Protocol
from .report import differences, peer_of, values_of
from .work import Subject

LISTS = ("chosen", "rows", "speeds", "runs")


def read(path: Path, protocol: Protocol) -> dict[str, Any]:
    """The report at ``path``. Raises ConfigError if it is none, or if another protocol made it: the results could not be compared."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        before = {key: report["protocol"].get(key) for key in asdict(protocol)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"--extend {path} is no report of this command: {error}") from error
    now = json.loads(json.dumps(asdict(protocol)))
    changed = [f"{key} was {before[key]!r} and is {now[key]!r}" for key in now if before[key] != now[key]]
    if changed:
        raise ConfigError(f"--extend {path} was made by another protocol: {'; '.join(changed)}")
    return report


def settings(report: Mapping[str, Any]) -> dict[Subject, Setting]:
    """The chosen setting of every subject of a report."""
    return {subject_of(row): row["setting"] for row in report["chosen"]}


def extended(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Both reports as one. A subject that both have is that of ``now``.

    Earlier speeds stay where their setting does, unless another machine measured new ones: no two machines stand in one table. A new
    subject whose DCRNN did not run again is compared with the earlier runs of it, over the seeds alone.
    """
    merged: dict[str, Any] = {**now, "spaces": {**before["spaces"], **now["spaces"]}}
    merged["protocol"] = {**now["protocol"], "tuned_at": now["protocol"]["tuned_at"] or before["protocol"]["tuned_at"]}
    data = list(dict.fromkeys(row["data"] for row in [*before["rows"], *now["rows"]]))
    order = {name: at for at, name in enumerate([*MODELS, *SIZES])}
    if not now["speeds"]:
        merged["machine"] = before["machine"]
    for name in LISTS:
        kept = [row for row in before[name] if name != "speeds" or _same_speed(row, before, merged)]
        new = {subject_of(row) for row in now[name]}
        rows = [row for row in kept if subject_of(row) not in new] + list(now[name])
        merged[name] = sorted(rows, key=lambda row: (data.index(row["data"]), order[row["model"]], order.get(row["size"], 0)))
    merged["rows"] = [_compared(row, merged) for row in merged["rows"]]
    return merged


def _same_speed(row: Mapping[str, Any], before: Mapping[str, Any], merged: Mapping[str, Any]) -> bool:
    subject = subject_of(row)
    return before["machine"] == merged["machine"] and settings(before)[subject] == settings(merged)[subject]


def _compared(row: Mapping[str, Any], merged: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row, with its differences from DCRNN where it has none yet and both have the same seeds."""
    subject = subject_of(row)
    peer = peer_of(subject, map(subject_of, merged["runs"]), merged["protocol"]["tuned_at"])
    own, peers = (sorted(_runs(merged, one), key=lambda run: run["seed"]) for one in (subject, peer))
    if "auc_difference" in row or peer in (None, subject) or [run["seed"] for run in own] != [run["seed"] for run in peers]:
        return row
    return {**row, **differences(values_of(own, row["task"]), values_of(peers, row["task"]))}


def _runs(report: Mapping[str, Any], subject: Subject | None) -> list[Mapping[str, Any]]:
    return [run for run in report["runs"] if subject_of(run) == subject]


def subject_of(row: Mapping[str, Any]) -> Subject:
    """Whose result a row is."""
    return Subject(row["data"], row["model"], row["size"])
