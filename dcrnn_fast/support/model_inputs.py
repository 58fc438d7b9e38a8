"""Checks of a model's arguments and inputs: fields, tasks, ids, dense features, labels, weights. A model does not compute them.

Each message names the argument and the field, what came and what was expected. Checks of values read the tensor, which on a GPU waits for
the device; :func:`checked` makes them before. A compiled or exported graph leaves them out. There :func:`merge_ids` makes an id outside its
field's range fail in the embedding lookup, so it never reads another field's row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .checks import MAX_SIZE, check_choice, check_count, check_counts, check_deviation, check_ratio, check_sequence
from .fields import pooling_problem
from .tensors import check_tensor
from .tracing import inputs_are_checked, inputs_checked, observed, values_of

Relation = Literal["chain", "independent", "transfer"]
"""How a model relates consecutive tasks."""
SCENARIO_RATIO = 0.25
"""The part of the units that is a scenario's trunk."""


def check_features(
    num_embeddings: Sequence[int] | Mapping[str, int], num_dense: int, embedding_dim: int, embedding_init_std: float, dense_bins: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of a model's columns of ids and their sizes. Raise TypeError or ValueError for an argument that cannot be."""
    check_sequence("num_embeddings", num_embeddings, "sizes, or a mapping from field names to sizes")
    sizes: Mapping[Any, int] = num_embeddings if isinstance(num_embeddings, Mapping) else dict(enumerate(num_embeddings))
    for name, size in sizes.items():
        check_count(f"num_embeddings[{name!r}]", size, maximum=2**40)
    check_count("num_dense", num_dense, minimum=0, maximum=MAX_SIZE)
    check_count("embedding_dim", embedding_dim, maximum=MAX_SIZE)
    check_deviation("embedding_init_std", embedding_init_std)
    check_count("dense_bins", dense_bins, minimum=0, maximum=MAX_SIZE)
    if not sizes and not num_dense:
        raise ValueError("num_embeddings is empty and num_dense is 0: expected at least one feature")
    return tuple(map(str, sizes)), tuple(map(int, sizes.values()))


def check_tasks(tasks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the tasks, and those of the conditionals between them. Raise TypeError or ValueError unless they are distinct."""
    check_sequence("tasks", tasks, "task names")
    tasks = tuple(tasks)
    if not all(isinstance(task, str) and task for task in tasks):
        raise TypeError(f"tasks={tasks!r}: expected names, each a string that is not empty")
    conditionals = tuple(f"{task}_given_{before}" for before, task in pairwise(tasks))
    predicted = [*tasks, *conditionals]
    if not tasks or len(set(predicted)) != len(predicted):
        raise ValueError(f"tasks={tasks!r}: expected at least one task, and distinct names in {predicted}, conditionals included")
    return tasks, conditionals


def check_towers(tower_dims: Sequence[int], dropout: float, relation: str) -> tuple[int, ...]:
    """The widths. Raise TypeError or ValueError unless towers can have them, this dropout and this relation."""
    widths = check_counts("tower_dims", tower_dims, "widths")
    check_ratio("dropout", dropout)
    if dropout == 1:
        raise ValueError("dropout=1: expected a probability in [0, 1)")
    check_choice("relation", relation, get_args(Relation))
    return widths


def check_first_order_only(
    fields: Sequence[str],
    names: Sequence[str],
    shared: Mapping[str, str],
    pooled: Mapping[str, Mapping[str, Any]],
    *,
    first_order: bool,
) -> tuple[str, ...]:
    """The fields. Raise TypeError or ValueError unless they have embeddings of their own, and the model has a first-order term."""
    check_sequence("first_order_only", fields, "names of fields")
    others = {*shared, *shared.values(), *(column for field in pooled.values() for column in field["columns"])}
    for field in fields:
        check_choice("first_order_only", field, [name for name in names if name not in others])
    if fields and not first_order:
        raise ValueError(f"first_order_only={list(fields)!r} with first_order=False: expected first_order=True, the term that reads them")
    return tuple(fields)


def check_scenario_field(
    scenario: str | None, share_ratio: float, sharing: str, names: Sequence[str], pooled: Mapping[str, Mapping[str, Any]]
) -> int | None:
    """The column of ids that names the scenario; None where there is none. Raise TypeError or ValueError unless it can have trunks."""
    check_ratio("share_ratio", share_ratio)
    if scenario is None:
        return None
    several = {column for field in pooled.values() for column in field["columns"]}
    check_choice("scenario", scenario, [name for name in names if name not in several])
    if sharing != "trunk":
        raise ValueError(f'scenario={scenario!r} with sharing={sharing!r}: expected sharing="trunk", whose units scenarios read')
    if float(share_ratio) + SCENARIO_RATIO > 1:
        said = f"expected at most {1 - SCENARIO_RATIO}, as a scenario's trunk has {SCENARIO_RATIO} of the units"
        raise ValueError(f"share_ratio={share_ratio} with scenario={scenario!r}: {said}")
    return names.index(scenario)


def check_scenario(scenario: Tensor, rows: int, num_scenarios: int) -> tuple[int, int] | None:
    """The least and the greatest scenario; None where the values cannot be read.

    Raise TypeError, ValueError or IndexError unless ``scenario`` is int64 or int32 [rows] with values in [0, num_scenarios].
    """
    check_tensor("scenario", scenario, "integers [B]")
    if scenario.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"scenario: got dtype {scenario.dtype}, expected torch.int64 (or torch.int32)")
    if scenario.shape != (rows,):
        raise ValueError(f"scenario: got shape {list(scenario.shape)}, expected [{rows}], one for each row of x0")
    values = values_of(scenario, 1)
    if values is None:
        return None
    low, high = torch.stack(values.aminmax()).tolist() if values.numel() else (0, 0)
    if low < 0 or high > num_scenarios:
        raise IndexError(f"scenario: got {low if low < 0 else high}, expected values in [0, {num_scenarios}]")
    return low, high


def check_edges(edges: Sequence[Tensor], num_dense: int, bins: int) -> None:
    """Raise ValueError unless there are 2 to bins + 1 rising, finite edges for each dense feature."""
    if len(edges) != num_dense:
        raise ValueError(f"edges: got {len(edges)} tensors, expected one for each of the {num_dense} dense features")
    for feature, values in enumerate(edges):
        values = values.to("cpu", torch.float32)
        rising = values.dim() == 1 and bool((values[1:] > values[:-1]).all()) and bool(values.isfinite().all())
        if not rising or not 2 <= len(values) <= bins + 1:
            raise ValueError(f"edges[{feature}]: got {values.tolist()[:8]}, expected 2 to {bins + 1} finite, rising numbers")


def check_negative_rate(rate: object, num_tasks: int, relation: str) -> None:
    """Raise TypeError or ValueError unless ``rate`` is a number in (0, 1] and, below 1, the relation says which rows are negative."""
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise TypeError(f"negative_rate={rate!r}: expected a number in (0, 1], got {type(rate).__name__}")
    if not 0.0 < float(rate) <= 1.0:
        raise ValueError(f"negative_rate={rate}: expected a number in (0, 1], the part of the rows without the first event that was kept")
    if float(rate) < 1.0 and num_tasks > 1 and relation != "chain":
        raise ValueError(
            f"negative_rate={rate} with {num_tasks} tasks and relation={relation!r}: expected relation='chain' or one task. The rate is "
            "that of rows without the first event of a funnel; probabilities of independent tasks do not tell how many rows that is"
        )


@contextmanager
def checked(
    model: Any,
    ids: Tensor,
    dense: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    sample_weight: Tensor | None = None,
    strict_funnel: bool = True,
) -> Iterator[None]:
    """Check a batch while it is on the CPU, so that inside the block no step waits for a GPU to check it.

    Inside the block, give models only these values, as they are or copied to a device: the model does not check again, and a stray id may
    read another field's row. The block holds for this thread.

    Args:
        model: a :class:`dcrnn_fast.DCRNN`, or the reference.
        ids, dense: of the model's ``forward``.
        labels, sample_weight, strict_funnel: of its ``loss``; None if you call none.

    Raises:
        IndexError, TypeError, ValueError: what ``forward`` and ``loss`` raise for these inputs; TypeError for another model.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN, checked
        >>> model = DCRNN({"user": 100, "item": 50})
        >>> ids, labels = torch.tensor([[7, 3], [99, 0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> with checked(model, ids, labels=labels):
        ...     model.loss(model(ids.to("cpu", non_blocking=True)), labels).backward()  # "cuda" in place of "cpu"
    """
    if not hasattr(model, "field_names"):
        raise TypeError(f"model: got {type(model).__name__}, expected a DCRNN; of one that is wrapped, as by DDP, pass the model inside")
    check_ids(ids, model.num_embeddings, model.field_names)
    check_dense(dense, ids.shape[0], model.num_dense)
    if labels is not None:
        shape = [ids.shape[0], len(model.tasks)]
        check_tensor("labels", labels, f"floats [B, {shape[1]}]")
        if list(labels.shape) != shape:
            raise ValueError(f"labels: got shape {list(labels.shape)}, expected {shape}, one column for each of {list(model.tasks)}")
        if ids.shape[0]:
            check_labels(labels, labels, model.tasks, funnel=strict_funnel and model.relation == "chain")
    if sample_weight is not None:
        check_sample_weight(sample_weight, ids.shape[0])
    with inputs_checked():
        yield


def _values(tensor: Tensor, dims: int) -> Tensor | None:
    """:func:`.tracing.values_of`, or None where the caller has checked them."""
    return None if inputs_are_checked() else values_of(tensor, dims)


def check_ids(ids: Tensor, sizes: Sequence[int], names: Sequence[str]) -> bool:
    """Raise TypeError, ValueError or IndexError unless ``ids`` is int64 or int32 [B, F] with column f in [0, sizes[f]).

    False where the values could not be read, and nobody has checked them before.
    """
    check_tensor("ids", ids, f"integers [B, {len(sizes)}]")
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids: got dtype {ids.dtype}, expected torch.int64 (or torch.int32)")
    if ids.dim() != 2 or ids.shape[1] != len(sizes):
        raise ValueError(f"ids: got shape {list(ids.shape)}, expected [B, {len(sizes)}], one column per field")
    values = _values(ids, 2)
    if values is None:
        return inputs_are_checked()
    if values.numel() == 0:
        return True
    highest = values.amax(dim=0).tolist()
    if int(values.min()) < 0 or any([high >= size for high, size in zip(highest, sizes, strict=True)]):
        lowest = values.amin(dim=0).tolist()
        for column, (low, high) in enumerate(zip(lowest, highest, strict=True)):
            if low < 0 or high >= sizes[column]:
                stray = low if low < 0 else high
                raise IndexError(f"ids: field {names[column]!r} (column {column}) has id {stray}, expected [0, {sizes[column]})")
    return True


def check_shared_embeddings(shared: object, names: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    """``shared`` as a dict; None is empty. Raise TypeError or ValueError unless it maps fields to others, not in it, of the same size."""
    if shared is None:
        return {}
    if not isinstance(shared, Mapping):
        raise TypeError(f"shared_embeddings={shared!r}: expected a mapping from field names to field names, got {type(shared).__name__}")
    ids, owners = dict(zip(names, sizes, strict=True)), [name for name in names if name not in shared]
    for name, owner in shared.items():
        check_choice("shared_embeddings: a field", name, names)
        check_choice(f"shared_embeddings[{name!r}]", owner, owners)
        if ids[name] != ids[owner]:
            raise ValueError(f"shared_embeddings[{name!r}]={owner!r}: the fields have {ids[name]} and {ids[owner]} ids, expected as many")
    return dict(shared)


def check_pooled(pooled: object, names: Sequence[str], shared: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """``pooled`` as a dict; None is empty. Raise TypeError or ValueError unless its fields have columns among ``names`` and a pooling."""
    if pooled is None:
        return {}
    if not isinstance(pooled, Mapping):
        raise TypeError(f"pooled={pooled!r}: expected a mapping from field names to their columns and pooling, got {type(pooled).__name__}")
    if problem := pooling_problem(pooled, names, shared):
        raise ValueError(f"pooled{problem}")
    return {name: {"columns": list(pool["columns"]), "pooling": pool["pooling"]} for name, pool in pooled.items()}


def merge_ids(ids: Tensor, sizes: Tensor, offsets: Tensor, num_rows: int, *, checked: bool = False) -> Tensor:
    """Rows [B, F] of the merged table: ``ids + offsets``. An id out of range becomes ``num_rows``, which no lookup accepts.

    ``checked`` says that these ids are in range. A graph that somebody records at this moment may still meet others.
    """
    rows = ids + offsets
    if checked and not observed():
        return rows
    return torch.where((ids >= 0) & (ids < sizes), rows, num_rows)


def check_dense(dense: Tensor | None, batch: int, num_dense: int) -> None:
    """Raise TypeError or ValueError unless ``dense`` is finite floating [B, N], or None where the model has no dense features."""
    if dense is None:
        if num_dense:
            raise ValueError(f"dense: got None, expected floats [{batch}, {num_dense}]; the model was built with num_dense={num_dense}")
        return
    check_tensor("dense", dense, f"floats [B, {num_dense}]")  # not the number: a graph would then hold for it alone
    if num_dense == 0:
        raise ValueError(f"dense: got shape {list(dense.shape)}, expected None; the model was built with num_dense=0")
    if not dense.is_floating_point():
        raise TypeError(f"dense: got dtype {dense.dtype}, expected a floating dtype")
    if tuple(dense.shape) != (batch, num_dense):
        raise ValueError(f"dense: got shape {list(dense.shape)}, expected [{batch}, {num_dense}]")
    values = _values(dense, 2)
    if values is not None and values.numel() and not all(map(math.isfinite, _range(values))):
        finite = torch.isfinite(values).all(dim=0)
        raise ValueError(f"dense: column {int(finite.long().argmin())} holds NaN or infinity; fill missing values before the model")


def _range(values: Tensor) -> list[float]:
    """The least and the greatest value, in one pass; both are NaN where one value is."""
    return torch.stack(torch.aminmax(values.detach())).tolist()


def check_labels(logits: Tensor, labels: Tensor, tasks: Sequence[str], funnel: bool) -> None:
    """Raise TypeError or ValueError unless ``labels`` is floating [B, T], like ``logits``, with values in [0, 1] or NaN.

    With ``funnel``, also raise ValueError where a task's label is above that of a task before it.
    """
    check_tensor("logits", logits, f"floats [B, {len(tasks)}]")
    check_tensor("labels", labels, f"floats [B, {len(tasks)}]")
    if not labels.is_floating_point():
        raise TypeError(f"labels: got dtype {labels.dtype}, expected a floating dtype (NaN marks an unknown label)")
    if logits.dim() != 2 or logits.shape[1] != len(tasks):
        raise ValueError(f"logits: got shape {list(logits.shape)}, expected [B, {len(tasks)}], one column for each of {list(tasks)}")
    if labels.shape != logits.shape:
        raise ValueError(f"labels: got shape {list(labels.shape)}, expected {list(logits.shape)} as logits has")
    if labels.shape[0] == 0:
        raise ValueError("labels: got an empty batch, expected at least one row; a loss over no rows is undefined")
    values = _values(labels, 2)
    if values is None:
        return
    filled = torch.nan_to_num(values.detach(), nan=1.0)
    low, high = _range(filled)
    if low < 0 or high > 1:
        raise ValueError("labels: got a value outside [0, 1], expected 0, 1, a probability, or NaN for unknown")
    if not funnel:
        return
    # Compare with the least of all known labels before: an unknown label between two known ones must not hide a broken funnel.
    least = filled.cummin(dim=1).values[:, :-1]
    broken = values[:, 1:] > least
    if bool(broken.any()):
        row, task = broken.nonzero()[0].tolist()
        before = int((values[row, : task + 1] == least[row, task]).nonzero()[-1])
        earlier, later = (f"{tasks[t]}={values[row, t].item():g}" for t in (before, task + 1))
        raise ValueError(
            f"labels: row {row} has {later} with {earlier}, and {int(broken.any(dim=1).sum())} rows in all break the funnel "
            f"{' -> '.join(tasks)}; under relation='chain' a later event implies the earlier one. Fix the labels, or pass "
            f"strict_funnel=False"
        )


def check_sample_weight(sample_weight: Tensor, batch: int) -> None:
    """Raise TypeError or ValueError unless ``sample_weight`` is a real [B], finite and not negative."""
    check_tensor("sample_weight", sample_weight, "numbers [B]")
    if sample_weight.is_complex():
        raise TypeError(f"sample_weight: got dtype {sample_weight.dtype}, expected real numbers")
    if tuple(sample_weight.shape) != (batch,):
        raise ValueError(f"sample_weight: got shape {list(sample_weight.shape)}, expected [{batch}]")
    values = _values(sample_weight, 1)
    if values is not None and not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError("sample_weight: got a negative or non-finite value, expected finite weights of at least 0")
