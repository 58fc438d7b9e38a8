"""Prepares a model for its first step: heads that predict base rates, edges of the numeric embeddings, and dropout of ids."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...data import PackedDataset
from ...data.codes.numbers import bucket_edges
from ...data.inspect.oov import LEAST, categorical_columns, dropped, id_counts, oov_strengths
from ...data.inspect.repeats import NEARLY_UNIQUE, unique_fields

SMALLEST = 1e-7
"""A rate of 0 counts as this one, and a rate of 1 as one minus this."""
RARE, PART = 0.005, 0.5
"""The head of an event that is rarer starts this part of the way, in logits, from one half to its rate; the others start near one half."""
MOST_ROWS = 1_000_000
"""Rows from which edges are learnt at most; of more rows, evenly spaced ones are taken."""


@contextmanager
def constant_heads(model: nn.Module, rates: Mapping[str, float], tasks: Sequence[str], *, chain: bool) -> Iterator[None]:
    """Within the block, a DCRNN predicts ``rates[task]`` for every row; afterwards its heads are what they were.

    The heads' weights are 0 and their biases are the rates' logits, so such a model is the constant.

    Args:
        model: it has one head a task, ``model.head``.
        rates: see :func:`dcrnn_fast.data.inspect.base_rates.base_rates`. A task without one has 0.5; a rate of 0 or 1
            counts as 1e-7 from it.
        tasks: in the order of the heads.
        chain: whether a head gives the event given the one before it: then its rate is the quotient of both tasks' rates.
    """
    weight, bias = (_head(model).get_parameter(f"private_{name}") for name in ("weight", "bias"))
    before_the_block = weight.detach().clone(), bias.detach().clone()
    with torch.no_grad():
        weight.zero_()
        bias.copy_(_logits(rates, tasks, chain).unsqueeze(1))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before_the_block[0])
            bias.copy_(before_the_block[1])


def start_rare_heads(model: nn.Module, rates: Mapping[str, float], tasks: Sequence[str], *, chain: bool) -> None:
    """Let the heads of rare events start near their rates, by their biases; arguments as of :func:`constant_heads`.

    From one half, a run may end before its log loss has come down to the constant's. Lin et al. (2017, "Focal loss for dense object
    detection", section 3.3) start a rare class at a low rate for a similar reason.
    """
    logits, bias = _logits(rates, tasks, chain).unsqueeze(1), _head(model).get_parameter("private_bias")
    with torch.no_grad():
        bias.copy_(torch.where(logits < _logit(RARE), PART * logits, bias.cpu()))


def _head(model: nn.Module) -> nn.Module:
    assert isinstance(model.head, nn.Module)
    return model.head


def _logits(rates: Mapping[str, float], tasks: Sequence[str], chain: bool) -> Tensor:
    """The logits of the heads' rates, float64 [T]."""
    logits = []
    for at, task in enumerate(tasks):
        rate = rates.get(task, 0.5)
        before = rates.get(tasks[at - 1], 0.5) if chain and at else 1.0
        logits.append(_logit(rate / before if before else rate))
    return torch.tensor(logits, dtype=torch.float64)


def _logit(rate: float) -> float:
    rate = min(max(rate, SMALLEST), 1 - SMALLEST)
    return math.log(rate) - math.log1p(-rate)


def first_order_of_ids_alone(model: nn.Module) -> None:
    """Keep the first-order term of dense columns as it starts, at zero.

    Where rows are few or dense columns many, it fits noise before the network learns: see docs/evidence/columns.md, "Numbers".
    """
    if isinstance(term := model.first_order, nn.Module) and term.dense_weight is not None:
        term.get_parameter("dense_weight").requires_grad_(False)


def dense_edges(dense: npt.NDArray[np.float32], bins: int) -> list[Tensor]:
    """For each dense column of ``dense`` [R, N] the rising edges of at most ``bins`` bins, as float32.

    Between the smallest and the largest value they are the edges of :func:`dcrnn_fast.data.codes.numbers.bucket_edges`: quantiles, with
    frequent values kept apart. A column of one value gets one bin above it.
    """
    rows = dense[:: -(-len(dense) // MOST_ROWS)]
    return [torch.from_numpy(_edges(rows[:, column].astype(np.float64), bins)) for column in range(dense.shape[1])]


def _edges(values: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float32]:
    ends = [values.min(), values.max()] if values.min() < values.max() else [values[0], values[0] + 1]
    for buckets in range(bins, 1, -1):
        edges = np.unique(np.concatenate([ends, bucket_edges(values, buckets)]).astype(np.float32))
        if len(edges) <= bins + 1:  # a frequent value can split a bucket in two
            return edges
    return np.unique(np.array(ends, dtype=np.float32))


class OOVDropout:
    """Reads an id that the train rows hold ``n`` times as out of vocabulary with probability ``strength / (strength + n)``.

    This is the word dropout of Kiperwasser and Goldberg (2016), section 4. An id that is seen once is replaced often, one that is seen a
    thousand times hardly ever; each id adds about ``strength`` reads of the out-of-vocabulary row to an epoch. What fields that share
    their embeddings hold counts together. Bucketed and hashed fields, whose id 0 means missing, are left as they are.

    ``"auto"`` gives each field the strength with which training reads as many of its cells as unseen as the validation rows hold, but at
    least 10: a model is trained as it will be asked, and trusts no id that it has seen a few times. In a split by time most users or items
    may be new; in a random split few are. Ids that tell much of the labels are trusted sooner, see
    :func:`dcrnn_fast.data.inspect.oov.least_strength`.

    Args:
        dataset: its train rows give the counts, and its validation rows the part that is unseen.
        strength: at least 0, of each field; or "auto".
        device: where the ids will be.

    ``strengths`` has the strength of each categorical field; of a field with several values, that of all its columns.
    """

    def __init__(self, dataset: PackedDataset, strength: float | Literal["auto"], device: torch.device) -> None:
        meta, counts = dataset.meta, id_counts(dataset.split("train"), dataset.meta)
        columns, self.unique = categorical_columns(meta), unique_fields(meta, counts)
        self.strengths = oov_strengths(dataset, counts) if strength == "auto" else dict.fromkeys(columns, float(strength))
        probability = [np.zeros(size) for size in meta.fields.values()]
        for field, positions in columns.items():
            for column in positions:
                probability[column][1:] = dropped(self.strengths[field], counts[1][column][1:])
        self.probability = torch.from_numpy(np.concatenate([*probability, np.zeros(0)]).astype(np.float32)).to(device)
        self.offsets = torch.tensor(np.cumsum([0, *meta.fields.values()])[:-1], dtype=torch.int64, device=device)

    def __call__(self, ids: Tensor) -> Tensor:
        """``ids`` int64 [B, F]; an id that this step reads as out of vocabulary becomes 0."""
        drop = torch.rand(ids.shape, device=ids.device) < self.probability[ids + self.offsets]
        return ids.masked_fill(drop, 0)

    def in_words(self) -> str:
        """The fields whose strength is above the least, for a person; empty if none is."""
        strong = [f"{field} {strength:.3g}" for field, strength in self.strengths.items() if strength > LEAST]
        where = f"OOV dropout is above {LEAST:g} where validation rows hold many ids that no train row has"
        unique = "".join(f"; {field} is {NEARLY_UNIQUE}" for field in self.unique if self.strengths.get(field, 0.0) > LEAST)
        return f"{where}: {', '.join(strong)}{unique}" if strong else ""
