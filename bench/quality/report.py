"""The report's rows, one a subject, as Markdown tables. A row's lists have a value for each seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..results import markdown, read, source
from .data_sets import NAMES
from .differences import over_seeds
from .models import AGAINST, MODELS, ONE_SIZE, TUNED_SIZE, Subject
from .networks import SIZES
from .speed import DTYPES, REQUEST, TRAINING

Row = Mapping[str, Any]
Result = Mapping[str, Any]
ORDER = [*MODELS, *SIZES]


def subject_of(row: Row) -> Subject:
    """Whose result a row is."""
    return Subject(row["data"], row["model"], row["size"])


def place(subject: Subject) -> tuple[int, int, int]:
    """Where a subject stands in a table."""
    return NAMES.index(subject.data), ORDER.index(subject.model), 0 if subject.size == ONE_SIZE else ORDER.index(subject.size)


def sets_of(rows: Iterable[Row]) -> list[str]:
    """The data sets of some rows."""
    return list(dict.fromkeys(row["data"] for row in rows))


def by_seed(row: Row | None) -> list[float]:
    """By seed, the mean over the tasks of the test AUC; empty where there are no runs."""
    return [statistics.fmean(values) for values in zip(*(found["auc"] for found in row["test"].values()), strict=True)] if row else []


def spread(values: Sequence[float | None], digits: int) -> str:
    """The mean ± the standard deviation over the seeds; "-" without a value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.{digits}f}" + (f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else "")


def headline(result: Result) -> str:
    """One short table of the tuned size: the mean test AUC of the tasks on each data set, the mean rank, and the costs on the first set.
    Bold: the best of a column.
    """
    rows = [row for row in result["rows"] if row["size"] in (TUNED_SIZE, ONE_SIZE)]
    sets, models = sets_of(rows), list(dict.fromkeys(row["model"] for row in rows))
    by_case = {(row["data"], row["model"]): row for row in rows}
    columns = [_column([by_seed(by_case.get((data, model))) for model in models], ".4f", max) for data in sets]
    ranks = mean_ranks({model: [by_seed(by_case.get((data, model))) for data in sets] for model in models})
    columns.append(_column([ranks.get(model, []) for model in models], ".1f", min))
    header = ["", *sets, "mean rank"]
    if any("speed" in row for row in rows):
        costs = [(dtype, TRAINING, max) for dtype in DTYPES] + [("float32", REQUEST, min)]
        for dtype, name, best_of in costs:
            found = [by_case.get((sets[0], model), {}).get("speed", {}).get(dtype, {}).get(name) for model in models]
            columns.append(_column([[] if value is None else [value] for value in found], ",.0f", best_of))
        header += [*(f"training rows/s, {dtype}" for dtype in DTYPES), "request, µs"]
    return markdown(header, [list(line) for line in zip((MODELS[name].title for name in models), *columns, strict=True)])


def _column(values: Sequence[Sequence[float]], digits: str, best_of: Callable[..., float]) -> list[str]:
    """Means with standard deviations, "-" where there is no value, and the best in bold."""
    means = [statistics.fmean(of_model) if of_model else None for of_model in values]
    best, texts = best_of([mean for mean in means if mean is not None], default=None), []
    for mean, of_model in zip(means, values, strict=True):
        text = "-" if mean is None else f"**{mean:{digits}}**" if mean == best else f"{mean:{digits}}"
        around = statistics.stdev(of_model) if len(of_model) > 1 else 0.0
        texts.append(text + (f" ± {around:{digits}}" if around else ""))
    return texts


def mean_ranks(aucs: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """By seed, the mean over the data sets of a model's rank by AUC, 1 for the best; of the models that every data set has."""
    whole = {model: of_sets for model, of_sets in aucs.items() if all(of_sets)}
    seeds = min((len(of_set) for of_sets in whole.values() for of_set in of_sets), default=0)
    return {
        model: [
            statistics.fmean(1 + sum(other[at][seed] > own[seed] for other in whole.values()) for at, own in enumerate(of_sets))
            for seed in range(seeds)
        ]
        for model, of_sets in whole.items()
    }


def title(row: Row, rows: Iterable[Row]) -> str:
    """The model's name, with its size where it has several."""
    several = len({other["size"] for other in rows if other["model"] == row["model"]}) > 1
    return MODELS[row["model"]].title + (f", {row['size']}" if several else "")


def budget(result: Result, data: str) -> str:
    """What each variant and size of DCRNN costs, from the cheapest training to the dearest."""
    rows = [row for row in result["rows"] if "speed" in row and row["data"] == data and row["model"].startswith("dcrnn")]
    return _costs(data, sorted(rows, key=lambda row: -max(row["speed"][dtype][TRAINING] for dtype in DTYPES)))


def as_markdown(result: Result) -> str:
    """Two tables for each data set: quality by task, and costs."""
    return "\n\n".join(of_set(result, data) for data in sets_of(result["rows"]))


def of_set(result: Result, data: str) -> str:
    """The tables of one data set."""
    rows = [row for row in result["rows"] if row["data"] == data]
    quality, measured = _quality(data, rows, result["constant"][data]), [row for row in rows if "speed" in row]
    return f"{quality}\n\n{_costs(data, measured)}" if measured else quality


def _quality(data: str, rows: list[Row], constant: Mapping[str, Any]) -> str:
    """By task: AUC, its difference from that of the DCRNN of the same size, GAUC where it is known, log loss and calibration."""
    tasks, by_subject = list(rows[0]["test"]), {subject_of(row): row for row in rows}
    gauc = ["GAUC"] if "gauc" in rows[0]["test"][tasks[0]] else []
    header = [data]
    for task in tasks:
        header += [f"{task}: AUC", "minus DCRNN's (t; 95% over rows)", *gauc, "log loss / constant's", "calibration"]
    lines = []
    for subject, row in by_subject.items():
        peer = by_subject.get(Subject(data, AGAINST, TUNED_SIZE if subject.size == ONE_SIZE else subject.size))
        line = [title(row, rows)]
        for task in tasks:
            own = row["test"][task]
            against = "-" if peer in (None, row) else difference(own, peer["test"][task])
            relative = [value / constant[task]["log_loss"] for value in own["log_loss"]]
            line += [spread(own["auc"], 4), against, *(spread(own.get("gauc", []), 4) for _ in gauc)]
            line += [spread(relative, 4), spread(own["calibration"], 3)]
        lines.append(line)
    return markdown(header, lines)


def difference(own: Mapping[str, Any], peer: Mapping[str, Any]) -> str:
    """AUC minus the peer's, paired by seed; in brackets t, and the bootstrap's interval where it is known."""
    if len(own["auc"]) != len(peer["auc"]):
        return "-"
    mean, t = over_seeds(own["auc"], peer["auc"])
    inside = ["-" if t is None else f"{t:.1f}", *(["{:+.4f} to {:+.4f}".format(*own["interval"])] if "interval" in own else [])]
    return f"{mean:+.4f} ({'; '.join(inside)})"


def _costs(data: str, rows: list[Row]) -> str:
    columns = [(dtype, TRAINING) for dtype in DTYPES] + [("float32", REQUEST)]
    lines = []
    for row in rows:
        costs = [row["parameters"], *(row["speed"].get(dtype, {}).get(name) for dtype, name in columns)]
        cells = ["-" if value is None else f"{value:,.0f}" for value in costs]
        lines.append([title(row, rows), spread(by_seed(row), 4), *cells])
    header = [data, "mean test AUC", "parameters", *(f"training rows/s, {dtype}" for dtype in DTYPES), "request, µs"]
    return markdown(header, lines)


def comparison(name: str = "quality") -> str:
    """The committed report: mean test AUC of the tasks and costs of all models, by one protocol.

    "quality_untuned" is that of ``make quality OPTIONS='--trials 1 --report quality_untuned --no-speeds'``.
    """
    result = read(f"{name}.json")
    protocol, tuned = result["protocol"], "Each model has its defaults."
    costs = ""
    if protocol["trials"] > 1:
        tuned = f"{protocol['trials']} tuning trials a model and data set."
        costs = (
            f" Costs are those on {result['rows'][0]['data']}: rows/s in training steps of {protocol['batch_size']} rows, and the latency "
            "of a request of one row in float32."
        )
    about = f"Mean test AUC of the tasks ± standard deviation over {protocol['seeds']} seeds; bold: the best of a column.{costs} {tuned}"
    return f"{headline(result)}\n\n{about} {source(result, f'{name}.json')}"


def variants() -> str:
    """What each variant of DCRNN costs, and its AUC."""
    result = read("quality.json")
    table = budget(result, result["rows"][0]["data"])
    return f"{table}\n\nConditions as in the table of all models. {source(result, 'quality.json')}"
