"""Metrics by segment: of the rows with each value of a field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...data import PackedMeta, PackedSplit
from ...data.codes.numbers import ROUNDING
from ...data.inspect.oov import is_categorical
from ...data.packed.meta import MISSING
from ...errors import ConfigError, shown
from .metrics import Array, binary_metrics, bootstrap_intervals

TINY = float(np.finfo(np.float64).tiny)
MOST = 20
"""Values of a field that are told apart: the ones with the most rows."""


def check_fields(by: object, meta: PackedMeta) -> tuple[str, ...]:
    """The names in ``by``, each once. Raises :class:`ConfigError` unless each is a field of the data."""
    known = ", ".join(meta.first_columns)
    if isinstance(by, str) or not isinstance(by, Iterable):
        raise ConfigError(f"by={shown(by)}: expected a list of fields of {meta.name}: {known}")
    names = tuple(by)
    for name in names:
        if not isinstance(name, str) or name not in meta.first_columns:
            raise ConfigError(f"by={shown(name)}: expected a field of {meta.name}: {known}. A numeric column is one if it has `buckets`")
    return tuple(dict.fromkeys(names))


def metrics_by(
    fields: Sequence[str],
    split: PackedSplit,
    meta: PackedMeta,
    labels: Mapping[str, Array],
    predictions: Mapping[str, Array],
    *,
    bootstrap: int | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """By field, its :func:`segments`, each with the metrics of its rows by task.

    Args:
        fields: names of fields, see :func:`check_fields`. One with several values counts by the first of them.
        split: the rows; the fields are read from its ids.
        meta: of the same data.
        labels: by task, [N] of 0, 1 or NaN.
        predictions: by task, [N] in [0, 1]; there may be more than labels.
        bootstrap: resamples for ``intervals``, see :func:`.metrics.bootstrap_intervals`; None for none.

    Returns:
        By field a list of ``{"value", "metrics"}``; the last one may be that of the other values together, whose ``value`` is None and
        which has ``values``, their number. By task, ``metrics`` hold what :func:`.metrics.binary_metrics` gives without a group, and
        ``label_mean`` and ``prediction_mean``, None where no label is known.
    """
    columns = list(meta.fields)
    result: dict[str, list[dict[str, Any]]] = {}
    for field in fields:
        ids = np.asarray(split.ids[:, columns.index(meta.first_columns[field])])
        result[field] = []
        for about, rows in segments(ids, names_of_ids(meta, field)):
            metrics = {task: _entry(known[rows], predictions[task][rows], bootstrap) for task, known in labels.items()}
            result[field].append({**about, "metrics": metrics})
    return result


def segments(ids: Array, name: Callable[[int], str], most: int = MOST) -> Iterator[tuple[dict[str, Any], Array]]:
    """The rows of each id in ``ids`` [N], as ``{"value": its name}`` and their positions, in the order of the ids.

    If there are more than ``most`` ids, the ids with the fewest rows, and of equal counts the highest, come last and together:
    ``{"value": None, "values": their number}``.

    >>> [(about, rows.tolist()) for about, rows in segments(np.array([2, 0, 2, 1, 0]), ["<oov>", "a", "b"].__getitem__, most=2)]
    [({'value': '<oov>'}, [1, 4]), ({'value': 'b'}, [0, 2]), ({'value': None, 'values': 1}, [3])]
    """
    found, counts = np.unique(ids, return_counts=True)
    frequent = np.sort(found[np.argsort(-counts, kind="stable")[:most]])
    for number in frequent:
        yield {"value": name(int(number))}, np.flatnonzero(ids == number)
    if others := len(found) - len(frequent):
        yield {"value": None, "values": others}, np.flatnonzero(~np.isin(ids, frequent))


def names_of_ids(meta: PackedMeta, field: str) -> Callable[[int], str]:
    """The value that an id of a field stands for: a category, a range of numbers, or a bucket of hashes.

    >>> meta = PackedMeta(
    ...     "shop", ("click",), False, "independent", {"city": 2, "price": 4, "user": 3}, (), None, False, {"train": 4},
    ...     {"city": ["<oov>", "a"], "price": [1.0, 2.5], "user": []}, {}, {}, 1,
    ... )
    >>> [[names_of_ids(meta, field)(number) for number in range(size)] for field, size in meta.fields.items()]
    [['<oov>', 'a'], ['<missing>', '< 1', '1 to < 2.5', '>= 2.5'], ['<missing>', 'hash bucket 0', 'hash bucket 1']]
    """
    column = meta.first_columns[field]
    entries = meta.vocabulary[column]
    if is_categorical(meta, field):
        return lambda number: str(entries[number])
    if not entries:  # of one bucket the format does not tell whether it holds hashes or numbers
        single = meta.fields[column] == 2
        return lambda number: MISSING if not number else "any value" if single else f"hash bucket {number - 1}"
    edges = [float(edge) for edge in entries]
    return [MISSING, _below(edges[0]), *(_between(low, high) for low, high in pairwise(edges)), _from(edges[-1])].__getitem__


def _between(low: float, high: float) -> str:
    number, is_above = _number_at(low)
    alone = not is_above and (high == max(math.nextafter(low, math.inf), low + TINY) or _number_at(high) == (number, True))
    return _number(number) if alone else f"{_from(low).removeprefix('>= ')} to {_below(high)}"


def _below(edge: float) -> str:
    number, is_above = _number_at(edge)
    return f"<{'=' * is_above} {_number(number)}"


def _from(edge: float) -> str:
    number, is_above = _number_at(edge)
    return f">{'=' * (not is_above)} {_number(number)}"


def _number_at(edge: float) -> tuple[float, bool]:
    """The number that :mod:`dcrnn_fast.data.codes.numbers` puts an edge at, and whether the edge is just above it and not just below.

    That is the shortest one from which rounding leads to the edge, but an integer only where the edge is at it.
    """
    before = 0.0 if edge == TINY else math.nextafter(edge, -math.inf)
    if edge.is_integer() or before.is_integer():
        return (edge, False) if edge.is_integer() else (before, True)
    numbers = (float(f"{edge:.{digits}g}") for digits in range(1, 18))
    number = next(one for one in numbers if abs(one - edge) <= 1.01 * ROUNDING * abs(edge) and not one.is_integer())
    return number, edge > number


def _number(number: float) -> str:
    return repr(number).removesuffix(".0")


def _entry(labels: Array, probabilities: Array, bootstrap: int | None) -> dict[str, Any]:
    entry = binary_metrics(labels, probabilities)
    rows, known = entry["rows"], ~np.isnan(labels)
    entry["label_mean"] = entry["positives"] / rows if rows else None
    entry["prediction_mean"] = float(probabilities[known].mean(dtype=np.float64)) if rows else None
    if bootstrap is not None:
        entry["intervals"] = bootstrap_intervals(labels, probabilities, bootstrap)
    return entry
