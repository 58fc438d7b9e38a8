"""Where the first-order term starts: at logistic regression on ids and numbers, in which each column is as strong as the train rows show.

An effect of an id is drawn from a normal distribution with mean 0 and the variance of its field, as in a mixed model. A field that tells
nothing that the others do not, such as a copy of another one, gets the variance 0 and no effects. Numbers have functions, see
:class:`.numbers.Number`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...data import PackedDataset, PackedMeta
from ...data.inspect.base_rates import event_labels
from ...support.fields import table_rows
from .numbers import Floats, Number

Counts = Floats | float
BLOCK, MOST_ROWS = 2**20, 2**25
"""Rows that are read at a time, and train rows that count at most; of more, evenly spaced ones are taken."""
MOST_BYTES = 2**28
"""Ids of so many bytes are copied once, column by column. Of more, each pass copies the columns that it reads."""
SWEEPS = 12
"""Over all fields. Each takes one step of Newton's method for a field's effects, and then one for its variance."""
VARIANCES = np.concatenate([[0.0], np.geomspace(1e-3, 10.0, 28)])
"""Of which the first sweep chooses."""
FEW, MOST_DECIDED = 256, 0.9
"""Of a field of at most FEW ids, effects of which the rows decide more than MOST_DECIDED are left to training."""
LONGEST, CENTRING = 1.5, 30
"""The longest step of an effect or of the intercept, in logits, and the most steps of the intercept at once."""


class Start(NamedTuple):
    """What the rows say of each id and task, in tables [rows of the table of ids, T] unless it is said otherwise."""

    effects: npt.NDArray[np.float32]
    intercepts: Floats
    """[T]"""
    numbers: npt.NDArray[np.float32]
    """[dense columns, bins, T]: by how much the function of a column rises in each of its bins."""
    curvatures: npt.NDArray[np.float32]
    """The second derivatives of the log loss, summed over the rows: how much is known of each effect."""
    scores: npt.NDArray[np.float32]
    """The first derivatives, of a field without effects: rows of a later run may add what it takes to have some."""
    variances: npt.NDArray[np.float32]
    """[fields with embeddings of their own, T]"""

    def settled(self, fields: list[Field]) -> npt.NDArray[np.float32]:
        """The effects that training finds by itself; it finds more of the others if they are not there from the start."""
        found = np.zeros_like(self.effects)
        for at, field in enumerate(fields):
            known = self.curvatures[field.rows] * self.variances[at]
            decided = (known**2 / (1 + known)).sum(axis=0) / np.maximum(known.sum(axis=0), 1e-9)  # for the mean row
            if field.size <= FEW:
                found[field.rows] = np.where(decided > MOST_DECIDED, self.effects[field.rows], 0)
        return found


class Field(NamedTuple):
    """The columns that read one part of the table, from row ``start`` on, of ``size`` ids; and the pooling of each column."""

    name: str
    start: int
    size: int
    columns: list[int]
    pooling: list[tuple[str, list[int]] | None]

    @property
    def rows(self) -> slice:
        """Its part of the table."""
        return slice(self.start, self.start + self.size)

    def cells(self, ids: npt.NDArray[np.int32]) -> Iterator[tuple[npt.NDArray[np.int32], Counts, Counts]]:
        """For each column of ids [B, C]: its ids, what an effect counts there, and that times the sum over the columns."""
        counts: list[Counts] = []
        for column, pool in zip(self.columns, self.pooling, strict=True):
            held = 1.0 if pool is None else (ids[:, column] != 0).astype(np.float64)
            values = (ids[:, pool[1]] != 0).sum(axis=1) if pool is not None and pool[0] == "mean" else 1.0
            counts.append(held / np.maximum(values, 1.0))
        together = sum(counts)
        for column, count in zip(self.columns, counts, strict=True):
            yield np.ascontiguousarray(ids[:, column]), count, count * together


def start_of(
    dataset: PackedDataset,
    *,
    chain: bool,
    weighted: bool,
    ids: bool = True,
    numbers: Sequence[Number] = (),
    before: Start | None = None,
    logits: npt.NDArray[np.floating[Any]] | None = None,
) -> Start:
    """Fit the effects to the train rows, task by task.

    Args:
        dataset: its train rows count.
        chain: whether the model multiplies conditionals: then a task is fitted to the rows in which the one before it happened.
        weighted: whether the rows' weights count.
        ids: whether the ids have effects. Without them and without numbers there are intercepts alone.
        numbers: the dense columns.
        before: of an earlier run, in the tables of this data set; new ids have zeros. The effects are then what to add to that run's: an id
            moves the less, the more was known of it. The curvatures add up, and of a field without effects the scores.
        logits: [rows, T], those of the heads of the model that the effects are added to.
    """
    meta, rows = dataset.meta, dataset.split("train")
    fields, size = fields_of(meta)
    asked = slice(None, None, -(-len(rows) // MOST_ROWS) or 1)
    cells, labels = np.asarray(rows.ids)[asked], np.asarray(rows.labels)[asked]
    weight = np.asarray(rows.weight, np.float64)[asked] if weighted and rows.weight is not None else np.ones(len(labels))
    effects, intercepts = np.zeros((size, len(meta.tasks)), np.float32), np.zeros(len(meta.tasks))
    of_fields = np.zeros((len(fields), len(meta.tasks)), np.float32)
    rises = np.zeros((len(numbers), max((number.size for number in numbers), default=0), len(meta.tasks)), np.float32)
    start = before or Start(effects, intercepts, rises, effects, effects, of_fields)
    curvatures, scores, variances = start.curvatures.copy(), start.scores.copy(), start.variances.copy()
    events = event_labels(labels, meta.tasks, funnel=chain)
    for task, name in enumerate(head_names(meta.tasks, chain=chain)):
        known = ~np.isnan(events[name])
        some = slice(None) if known.all() else known
        found = _Regression(cells[some], events[name][some].astype(np.float64), weight[some])
        found.dense = np.asarray(rows.dense)[asked][some] if numbers and rows.dense is not None else None
        if logits is not None:
            found.logits += logits[asked][some, task]
        both = (start.curvatures, start.scores)
        found.before = {field.name: tuple(one[field.rows, task].astype(np.float64) for one in both) for field in fields}
        found.variances = {field.name: float(start.variances[at, task]) for at, field in enumerate(fields)}
        found.learned = {field.name for field in fields if found.variances[field.name]}
        is_fitted = found.fit([*(fields if ids else ()), *numbers], starts=logits is None)
        intercepts[task] = found.intercept
        for at, number in enumerate(numbers):
            rises[at, : number.size, task] = found.effects.get(number.column, 0.0)
        begin = found.effects.keys() - found.learned  # what was added up without their effects holds no longer
        for at, field in enumerate(fields if ids and is_fitted else []):
            variances[at, task] = found.variances[field.name]
            gradient, curvature = found.derivatives(field)
            if field.name not in found.before or (begin and field.name not in found.effects):
                curvatures[field.rows, task] = scores[field.rows, task] = 0
            curvatures[field.rows, task] += curvature
            if field.name in found.effects:
                effects[field.rows, task], scores[field.rows, task] = found.effects[field.name], 0
            else:
                scores[field.rows, task] += gradient
    return Start(effects, intercepts, rises, curvatures, scores, variances)


def head_names(tasks: Sequence[str], *, chain: bool) -> list[str]:
    """What each head of a model predicts, by the names of ``DCRNN.predict``: of a chain each task but the first given the one before."""
    return [f"{task}_given_{tasks[at - 1]}" if chain and at else task for at, task in enumerate(tasks)]


def fields_of(meta: PackedMeta) -> tuple[list[Field], int]:
    """The parts of the table, in the order of the columns, and the table's rows."""
    names, sizes = list(meta.fields), list(meta.fields.values())
    rows, starts = table_rows(names, sizes, meta.shared)
    pools: dict[str, tuple[str, list[int]]] = {}
    for pool in meta.pooled.values():
        pools |= dict.fromkeys(pool["columns"], (pool["pooling"], [names.index(column) for column in pool["columns"]]))
    found: dict[int, Field] = {}
    for position, (name, start) in enumerate(zip(names, starts, strict=True)):
        field = found.setdefault(start, Field(meta.shared.get(name, name), start, sizes[position], [], []))
        field.columns.append(position)
        field.pooling.append(pools.get(name))
    return list(found.values()), rows


class _Regression:
    """Logistic regression of labels [N] on ids [N, C] with weights [N], field by field."""

    def __init__(self, ids: npt.NDArray[np.int32], labels: Floats, weight: Floats) -> None:
        self.ids, self.labels, self.weight = np.asfortranarray(ids) if ids.nbytes <= MOST_BYTES else ids, labels, weight
        self.dense: npt.NDArray[np.float32] | None = None
        self.effects: dict[str | int, Floats] = {}
        """Of fields, by their names; and the rises of numbers, by their columns."""
        self.before: dict[str, tuple[Floats, ...]] = {}
        self.variances: dict[str | int, float] = {}
        self.learned: set[str] = set()
        self.intercept = 0.0
        self.logits = np.zeros(len(labels))

    def fit(self, fields: list[Field | Number], *, starts: bool) -> bool:
        """Whether there are rows of both labels, to fit to. ``starts``: the intercept starts at the rate, and not at 0."""
        total, positive = float(self.weight.sum()), float(self.weight @ self.labels)
        if starts:
            self._add(float(np.log((positive + 0.5) / (total - positive + 0.5))))
        if not 0 < positive < total:
            return False
        self._centre()
        for sweep in range(SWEEPS):
            for field in sorted(fields, key=lambda field: field.size):  # what a coarse field says is not said by a fine one
                if isinstance(field, Number):
                    self._step_number(field, is_first=not sweep)
                elif not sweep or field.name in self.effects:
                    self._step(field)
            self._centre()
        return True

    def _add(self, shift: float) -> None:
        self.intercept += shift
        self.logits += shift

    def _blocks(self) -> Iterator[tuple[slice, Floats, Floats]]:
        """Slices of the rows, with their gradients and curvatures."""
        for start in range(0, len(self.labels), BLOCK):
            rows = slice(start, start + BLOCK)
            p = 1 / (1 + np.exp(-self.logits[rows]))
            yield rows, (self.labels[rows] - p) * self.weight[rows], p * (1 - p) * self.weight[rows]

    def _centre(self) -> None:
        """Move the intercept to where the rows are likeliest. Steps are bounded: where most logits are large, Newton's go far beyond."""
        for _ in range(CENTRING):
            sums = [(gradient.sum(), curvature.sum()) for _, gradient, curvature in self._blocks()]
            step = float(sum(one for one, _ in sums) / max(sum(one for _, one in sums), 1e-9))
            self._add(min(max(step, -LONGEST), LONGEST))
            if abs(step) < 1e-3:
                break

    def derivatives(self, field: Field) -> tuple[Floats, Floats]:
        """The first and the second ones of the log-likelihood of a field's effects."""
        gradient, curvature = np.zeros(field.size), np.zeros(field.size)
        for rows, of_row, curve in self._blocks():
            for ids, count, bound in field.cells(self.ids[rows]):
                gradient += sums_of(ids, of_row, count, field.size)
                curvature += sums_of(ids, curve, bound, field.size)
        return gradient, curvature

    def _step(self, field: Field) -> None:
        gradient, curvature = self.derivatives(field)
        known, score = self.before.get(field.name, (np.zeros(field.size), np.zeros(field.size)))
        effects, variance, whole = self.effects.get(field.name), self.variances[field.name], curvature + known
        if field.name not in self.learned:  # its variance is not that of an earlier run
            if effects is None and self.effects.keys() - self.learned:  # what a copy of such a field has added up is no news
                self.before.pop(field.name, None)
                known, score, whole = 0 * known, 0 * score, curvature
            variance = next_variance(effects, gradient + score, whole, variance)
            if not variance:
                return
        effects = np.zeros(field.size) if effects is None else effects
        held = known + 1 / variance
        step = np.clip((gradient + score - effects * held) / (curvature + held), -LONGEST, LONGEST)
        self.effects[field.name], self.variances[field.name] = effects + step, variance
        for rows in (slice(start, start + BLOCK) for start in range(0, len(self.labels), BLOCK)):
            for ids, count, _ in field.cells(self.ids[rows]):
                self.logits[rows] += step[ids] * count if isinstance(count, np.ndarray) else (step * count)[ids]

    def _step_number(self, number: Number, *, is_first: bool) -> None:
        """As :meth:`_step`, for the rises of a number's function, along directions in which they do not depend on each other.

        The intercept moves so that the mean logit stays as it is.
        """
        before = self.effects.get(number.column)
        if self.dense is None or (before is None and not is_first):
            return
        values = self.dense[:, number.column]
        gradient, curvature, directions, means = number.derivatives(values, self._blocks())
        effects = None if before is None else number.size * (before @ directions)
        variance = next_variance(effects, gradient, curvature, self.variances.get(number.column, 0.0))
        if not variance:
            return
        step = (gradient - (0.0 if effects is None else effects / variance)) / (curvature + 1 / variance)
        rises = directions @ np.clip(step, -LONGEST, LONGEST)
        self.effects[number.column], self.variances[number.column] = rises if before is None else before + rises, variance
        self._add(-float(means @ rises))
        for start in range(0, len(values), BLOCK):
            self.logits[start : start + BLOCK] += number.function(values[start : start + BLOCK], rises)


def next_variance(effects: Floats | None, gradient: Floats, curvature: Floats, variance: float) -> float:
    """The variance of effects that have none yet; or after a ``variance``, by MacKay (Neural Computation 4, 1992).

    That is the sum of the squares over the number of effects that the rows decide.
    """
    if effects is None:
        return likeliest_variance(gradient, curvature)
    decided = float((1 - 1 / (1 + curvature * variance)).sum())
    return min(max(float((effects**2).sum()) / max(decided, 1e-9), 1e-4), 10.0)


def sums_of(ids: npt.NDArray[np.int32], values: Floats, count: Counts, size: int) -> Floats:
    """For each id, the sum of ``values * count`` [B] over its rows."""
    sums: Any = np.bincount(ids, values * count if isinstance(count, np.ndarray) else values, size)
    return sums if isinstance(count, np.ndarray) else sums * count


def likeliest_variance(gradient: Floats, curvature: Floats) -> float:
    """The variance of the effects of a field's ids, from the log-likelihood's derivatives [n] at no effects; 0 unless another is likelier.

    To the second order, the gradient of an id with curvature h is normal with mean 0 and variance h + h^2 v, where v is the effects'.
    """
    decided = curvature * VARIANCES[:, None]
    gain: Any = 0.5 * (gradient**2 * VARIANCES[:, None] / (1 + decided) - np.log1p(decided)).sum(axis=1)
    return float(VARIANCES[int(gain.argmax())])
