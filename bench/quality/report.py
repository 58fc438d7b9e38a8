"""The results as rows, and as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset

from ..results import markdown
from .differences import over_rows, over_seeds
from .models import AGAINST, MODELS
from .speed import DTYPES
from .work import ONE_SIZE, Subject, Work

METRICS = ("auc", "gauc", "log_loss", "relative_log_loss", "calibration")
Runs = Mapping[Subject, Sequence[Mapping[str, Any]]]


def peer_of(subject: Subject, subjects: Iterable[Subject], tuned_at: str | None) -> Subject | None:
    """The DCRNN to compare with: of the same size; for a model without sizes, of the tuned size, or the first one."""
    candidates = [other for other in subjects if (other.data, other.model) == (subject.data, AGAINST)]
    sizes = (tuned_at if subject.size == ONE_SIZE else subject.size,)
    return next((other for other in candidates if other.size in sizes), candidates[0] if candidates else None)


def values_of(runs: Sequence[Mapping[str, Any]], task: str) -> dict[str, list[float | None]]:
    """By metric, the values of the runs of a subject on the test rows."""
    return {name: [_value(run["test"][task], name) for run in runs] for name in METRICS}


def differences(own: Mapping[str, Sequence[float | None]], peers: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    """The entries of a row that compare :func:`values_of` a subject with those of its peer, seed by seed."""
    row: dict[str, float | None] = {}
    for name in ("auc", "log_loss"):
        pairs = [pair for pair in zip(own[name], peers[name], strict=True) if None not in pair]
        found = over_seeds(*zip(*pairs, strict=True)) if pairs else {}
        row |= {f"{name}_difference" + ("" if key == "mean" else f"_{key}"): value for key, value in found.items()}
    return row


def summarise(
    runs: Runs, dataset: PackedDataset, work: Work, resamples: int, tell: Callable[[str], None], tuned_at: str | None
) -> list[dict[str, Any]]:
    """One row a subject and task of one data set: means and standard deviations over the seeds, and the differences from DCRNN."""
    rows = []
    labels = np.asarray(dataset.split("test").labels)
    for position, task in enumerate(dataset.meta.tasks):
        values = {subject: values_of(its_runs, task) for subject, its_runs in runs.items()}
        peers = {subject: peer_of(subject, runs, tuned_at) for subject in runs}
        bounds = _bounds(runs, peers, labels[:, position], position, work, resamples, tell)
        for subject, of_subject in values.items():
            row: dict[str, Any] = {**subject._asdict(), "task": task, "seeds": len(runs[subject])}
            row["parameters"] = runs[subject][0]["parameters"]
            for name, numbers in of_subject.items():
                known = [number for number in numbers if number is not None]
                row[name] = statistics.fmean(known) if known else None
                row[f"{name}_std"] = statistics.stdev(known) if len(known) > 1 else None
            peer = peers[subject]
            if peer and peer != subject:
                row |= differences(of_subject, values[peer])
                if subject in bounds:
                    row |= dict(zip(("auc_difference_low", "auc_difference_high"), bounds[subject], strict=True))
            rows.append(row)
    return rows


def _value(entry: Mapping[str, Any], name: str) -> float | None:
    if name != "relative_log_loss":
        return entry.get(name)
    own, constant = entry["log_loss"], entry["constant_log_loss"]
    return own / constant if own is not None and constant else None


def _bounds(
    runs: Runs,
    peers: Mapping[Subject, Subject | None],
    labels: np.ndarray,
    position: int,
    work: Work,
    resamples: int,
    tell: Callable[[str], None],
) -> dict[Subject, tuple[float, float]]:
    """The bootstrap's interval of each subject that has a DCRNN to compare with."""
    known = labels[~np.isnan(labels)]
    if not resamples or len(set(known.tolist())) < 2:
        return {}
    bounds = {}
    for peer in [subject for subject in runs if subject.model == AGAINST]:
        group = [subject for subject in runs if peers[subject] == peer]
        tell(f"{peer.data}, {peer.size}: {resamples} resamples of the test rows, task {position + 1}")
        scores = {
            str(subject): np.stack([work.logits(subject, f"seed-{run['seed']}")[:, position] for run in runs[subject]]) for subject in group
        }
        found = over_rows(labels, scores, str(peer), resamples)
        bounds |= {subject: found[str(subject)] for subject in group if subject != peer}
    return bounds


def as_markdown(result: Mapping[str, Any]) -> str:
    """Two tables for each data set: quality by task, and costs."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["data"] == data]
        speeds = [row for row in result["speeds"] if row["data"] == data]
        parts += [_quality(data, rows), _costs(data, speeds)] if speeds else [_quality(data, rows)]
    return "\n\n".join(parts)


def headline(result: Mapping[str, Any]) -> str:
    """One short table: the mean test AUC of the tasks on each data set, the mean rank, and the costs on the first set. Bold: the best of
    a column.
    """
    shown = of_tuned_size(result)
    sets = list(dict.fromkeys(row["data"] for row in shown["rows"]))
    models = list(dict.fromkeys((row["model"], row["size"]) for row in shown["rows"]))
    columns = [_column([list(by_seed(result["runs"], data, *key).values()) for key in models], ".4f", max) for data in sets]
    ranks = mean_ranks(result, sets, [key for key in models if key[0] != "constant"])
    columns.append(_column([ranks.get(key, []) for key in models], ".1f", min))
    costs = {(row["model"], row["size"]): row for row in shown["speeds"] if row["data"] == sets[0]}
    header = ["", *sets, "mean rank"]
    if costs:
        for dtype in DTYPES:
            speeds = [costs.get(key, {}).get(dtype, {}).get("training_rows_per_second") for key in models]
            columns.append(_column([[] if speed is None else [speed] for speed in speeds], ",.0f", max))
        requests = [costs.get(key, {}).get("float32", {}).get("request_microseconds") for key in models]
        columns.append(_column([[] if request is None else [request] for request in requests], ",.0f", min))
        header += [*(f"training rows/s, {dtype}" for dtype in DTYPES), "request, µs"]
    names = [title(dict(zip(("model", "size"), key, strict=True)), shown["rows"]) for key in models]
    return markdown(header, [list(line) for line in zip(names, *columns, strict=True)])


def _column(values: Sequence[Sequence[float]], digits: str, best_of: Callable[..., float]) -> list[str]:
    """Means with standard deviations, "-" where there is no value, and the best in bold."""
    means = [statistics.fmean(of_model) if of_model else None for of_model in values]
    best, texts = best_of([mean for mean in means if mean is not None], default=None), []
    for mean, of_model in zip(means, values, strict=True):
        text = "-" if mean is None else f"**{mean:{digits}}**" if mean == best else f"{mean:{digits}}"
        spread = statistics.stdev(of_model) if len(of_model) > 1 else 0.0
        texts.append(text + (f" ± {spread:{digits}}" if spread else ""))
    return texts


def budget(result: Mapping[str, Any], data: str) -> str:
    """What each variant and size of DCRNN costs, and the mean test AUC of the tasks, from the cheapest training to the dearest."""
    lines = []
    for row in result["speeds"]:
        aucs = list(by_seed(result["runs"], row["data"], row["model"], row["size"]).values())
        if row["data"] == data and row["model"].startswith("dcrnn") and aucs:
            speeds = [row[dtype]["training_rows_per_second"] for dtype in DTYPES]
            spread = f" ± {statistics.stdev(aucs):.4f}" if len(aucs) > 1 else ""
            cells = [title(row, result["speeds"]), f"{statistics.fmean(aucs):.4f}{spread}", f"{row['parameters']:,}"]
            cells += [f"{speed:,}" for speed in speeds] + [f"{row['float32']['request_microseconds']:,.0f}"]
            lines.append((-max(speeds), cells))
    header = [data, "mean test AUC", "parameters", *(f"training rows/s, {dtype}" for dtype in DTYPES), "request, µs"]
    return markdown(header, [cells for _, cells in sorted(lines)])


def of_tuned_size(result: Mapping[str, Any]) -> dict[str, Any]:
    """The results without the sizes that took their setting from another one."""
    at = result["protocol"]["tuned_at"]
    kept = {name: [row for row in result[name] if at is None or row["size"] in (at, ONE_SIZE)] for name in ("rows", "speeds")}
    return {**result, **kept}


def by_seed(runs: Iterable[Mapping[str, Any]], data: str, model: str, size: str) -> dict[int, float]:
    """The mean over the tasks of the test AUC."""
    found = {}
    for run in runs:
        if (run["data"], run["model"], run["size"]) == (data, model, size):
            aucs = [entry["auc"] for entry in run["test"].values() if entry["auc"] is not None]
            if aucs:
                found[run["seed"]] = statistics.fmean(aucs)
    return found


def mean_ranks(result: Mapping[str, Any], sets: Sequence[str], models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[float]]:
    """By seed, the mean over the data sets of a model's rank by AUC, 1 for the best; of the models that every data set has."""
    aucs = {key: [by_seed(result["runs"], data, *key) for data in sets] for key in models}
    whole = {key: of_sets for key, of_sets in aucs.items() if all(of_sets)}
    seeds = sorted(set.intersection(*(set(of_set) for of_sets in whole.values() for of_set in of_sets))) if whole else []
    found: dict[tuple[str, str], list[float]] = {}
    for key, of_sets in whole.items():
        ranks = [
            [1 + sum(other[at][seed] > of_set[seed] for other in whole.values()) for at, of_set in enumerate(of_sets)] for seed in seeds
        ]
        found[key] = [statistics.fmean(of_seed) for of_seed in ranks]
    return found


def title(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The model's name, with its size where it has several."""
    several = len({other["size"] for other in rows if other["model"] == row["model"]}) > 1
    return MODELS[row["model"]].title + (f", {row['size']}" if several else "")


def _quality(data: str, rows: list[dict[str, Any]]) -> str:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    groups = any(row["gauc"] is not None for row in rows)
    header = [data]
    for task in tasks:
        header += [
            f"{task}: AUC",
            "minus DCRNN's (t; 95% over rows)",
            *(["GAUC"] if groups else []),
            "log loss / constant's",
            "calibration",
        ]
    lines = []
    for first in (row for row in rows if row["task"] == tasks[0]):
        line = [title(first, rows)]
        for task in tasks:
            row = next(r for r in rows if (r["task"], r["model"], r["size"]) == (task, first["model"], first["size"]))
            line += [_spread(row, "auc", 4), _difference(row)]
            line += [_spread(row, "gauc", 4)] if groups else []
            line += [_spread(row, "relative_log_loss", 4), _spread(row, "calibration", 3)]
        lines.append(line)
    return markdown(header, lines)


def _spread(row: Mapping[str, Any], name: str, digits: int) -> str:
    mean, spread = row[name], row[f"{name}_std"]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _difference(row: Mapping[str, Any]) -> str:
    if row.get("auc_difference") is None:
        return "-"
    inside = ["-" if row["auc_difference_t"] is None else f"{row['auc_difference_t']:.1f}"]
    if "auc_difference_low" in row:
        inside.append(f"{row['auc_difference_low']:+.4f} to {row['auc_difference_high']:+.4f}")
    return f"{row['auc_difference']:+.4f} ({'; '.join(inside)})"


def _costs(data: str, rows: list[dict[str, Any]]) -> str:
    columns = [
        (task, dtype) for task in ("training_rows_per_second", "inference_rows_per_second", "request_microseconds") for dtype in DTYPES
    ]
    words = {
        "training_rows_per_second": "training rows/s",
        "inference_rows_per_second": "inference rows/s",
        "request_microseconds": "request, µs",
    }
    header = [data, "parameters", "FLOPs a row", *(f"{words[name]}, {dtype}" for name, dtype in columns)]
    lines = []
    for row in rows:
        counts = ["-" if row[name] is None else f"{row[name]:,}" for name in ("parameters", "flops")]
        speeds = [row.get(dtype, {}).get(name) for name, dtype in columns]
        lines.append([title(row, rows), *counts, *("-" if value is None else f"{value:,.0f}" for value in speeds)])
    return markdown(header, lines)
