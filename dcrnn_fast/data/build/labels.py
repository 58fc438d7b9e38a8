"""The 0/1 labels of a staged table."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..codes.numbers import Place
from ..packed.meta import MISSING
from ..read.columns import TRUTHS, spelled
from ..schema.fields import Rule
from ..schema.table import TableSchema
from .staging import Batch, BatchValues, StagedTable

YAML_TRUTHS = {True: (*TRUTHS[True], "on"), False: (*TRUTHS[False], "off")}
"""Words for `true` and `false` in `positive`: the words of a label column, and the other ones that YAML reads as truth values."""


def label_values(staged: StagedTable, rule: Rule) -> BatchValues:
    """What a rule, such as that of a task's label, says of the rows of a batch: 0, 1, or NaN for unknown.

    It raises DataError for a number that is neither 0 nor 1 where the rule is the column as it is.
    """
    if rule.positive is not None:
        return staged.texts[rule.column].map(lambda texts: labels_of(rule, texts), np.float32)

    def values(batch: Batch) -> npt.NDArray[np.float32]:
        numbers = staged.numbers[rule.column].values(batch)
        if rule.threshold is not None:
            return np.where(np.isnan(numbers), np.nan, numbers >= rule.threshold).astype(np.float32)
        strange = ~np.isnan(numbers) & (numbers != 0) & (numbers != 1)
        if strange.any():
            row = strange.argmax()
            expected = f"expected 0 and 1 (empty: unknown) of {rule.title}"
            remedy = "make a column of 0 and 1 of it, or give it a `threshold` or `positive` in the schema"
            raise batch.place.error(f"holds {numbers[row]:g}, {expected}; {remedy}", row, rule.column)
        return numbers.astype(np.float32)

    return values


def labels_of(rule: Rule, texts: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """The labels that a `positive` rule gives to texts as a vocabulary spells them."""
    assert rule.positive is not None
    positive = spelled(pa.array([text for text in rule.positive if isinstance(text, str)], pa.string()))
    truths = pa.array([word for truth in rule.positive if isinstance(truth, bool) for word in YAML_TRUTHS[truth]], pa.string())
    hit = pc.or_(pc.is_in(texts, positive), pc.is_in(pc.ascii_lower(texts), truths)).to_numpy()
    return np.where(pc.equal(texts, MISSING).to_numpy(), np.nan, hit).astype(np.float32)


def check_funnel(schema: TableSchema, labels: npt.NDArray[np.float32], place: Place) -> None:
    """Raise DataError for a row of a batch whose later event happened without an earlier one; `labels` are [N, T]."""
    # Every pair, not neighbours alone: a label between the two may be unknown.
    for s, t in combinations(range(labels.shape[1]), 2):
        broken = (labels[:, t] == 1) & (labels[:, s] == 0)
        if broken.any():
            later, earlier = schema.tasks[t].name, schema.tasks[s].name
            broke = f"the tasks are declared a funnel, yet the row has {later} = 1 and {earlier} = 0"
            raise place.error(f"{broke}; correct such rows, or set `funnel` to false", broken.argmax())
