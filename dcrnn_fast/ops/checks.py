"""Checks of the operators' tensors. As in :mod:`.inputs`, each message names the argument, what came and what was expected."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..support.checks import FLOATING, check_alike, check_memory, check_tensor
from ..support.tracing import values_of

_checked_index: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""The indices on a GPU that were checked, each with its version and the number of rows: reading one again would wait for the device."""

MAX_ROWS = 2**24
"""The most rows of a bank: the backward of a gather keeps a number for each."""


class Projection(NamedTuple):
    """The arguments of ``cross_rnn`` that give its cell a low rank; all None for the full cell."""

    shared_projection: Tensor | None = None
    private_projection: Tensor | None = None
    projection_index: Tensor | None = None


NO_PROJECTION = Projection()


def check_index(index: Tensor, rows: int, name: str = "index", letters: str = "S + P") -> None:
    """Raise IndexError unless all values of ``index`` are in [0, rows). An index on a GPU is read once, and again after a change."""
    values = values_of(index, 2)
    if values is not None and values.numel() and not index_is_checked(index, rows):
        low, high = (int(bound) for bound in values.aminmax())
        if low < 0 or high >= rows:
            raise IndexError(f"{name}: got {low if low < 0 else high}, expected values in [0, {letters}) = [0, {rows})")
        if not (index.is_cpu or index.is_inference()):
            _checked_index[index] = (index._version, rows)


def index_is_checked(index: Tensor, rows: int) -> bool:
    """Whether :func:`check_index` has passed this index on a GPU for so many rows, and nobody has changed it since."""
    return not (index.is_cpu or index.is_inference()) and _checked_index.get(index) == (index._version, rows)


def check_rows(num_shared: int, num_private: int, index: Tensor, names: str, index_name: str = "index") -> None:
    """Raise ValueError for banks of too many rows, IndexError for none where ``index`` has values."""
    for rows in (num_shared, num_private):
        if isinstance(rows, int) and not 0 <= rows <= MAX_ROWS:  # a traced graph may leave it open
            raise ValueError(f"{names}: got {num_shared} and {num_private} rows, expected 0 to {MAX_ROWS} each")
    if isinstance(num_shared, int) and isinstance(num_private, int) and num_shared + num_private == 0 and index.numel():
        raise IndexError(f"{index_name}: got values, expected none: the banks have no rows")


def check_banks(shared_name: str, shared: Tensor, private_name: str, private: Tensor, index: Tensor, index_name: str = "index") -> None:
    """Raise TypeError or ValueError unless the banks are floating [S, ...] and [T, P, ...] and ``index`` is int32 [T, R], on one device."""
    check_tensor(index_name, index, "int32 [T, R]")
    check_tensor(shared_name, shared, "floats [S, ...]")
    check_tensor(private_name, private, "floats [T, P, ...]")
    for name, tensor in ((shared_name, shared), (private_name, private), (index_name, index)):
        check_memory(name, tensor)
    if index.dtype != torch.int32:
        raise TypeError(f"{index_name}: got dtype {index.dtype}, expected torch.int32")
    if index.dim() != 2:
        raise ValueError(f"{index_name}: got shape {list(index.shape)}, expected [T, R]")
    if shared.dtype not in FLOATING:
        raise TypeError(f"{shared_name}: got dtype {shared.dtype}, expected a floating dtype of at least 16 bits")
    if shared.dim() < 1 or private.dim() != shared.dim() + 1 or private.shape[2:] != shared.shape[1:]:
        raise ValueError(
            f"{private_name}: got shape {list(private.shape)}, expected [T, P, ...] with the trailing shape of {shared_name} [S, ...], "
            f"which is {list(shared.shape)}"
        )
    if private.shape[0] != index.shape[0]:
        raise ValueError(f"{private_name}: got {private.shape[0]} tasks, expected {index.shape[0]} as {index_name} {list(index.shape)} has")
    check_rows(shared.shape[0], private.shape[1], index, f"{shared_name}, {private_name}", index_name)
    check_alike(shared_name, shared, {private_name: private})
    if index.device != shared.device:
        raise ValueError(f"{index_name}: got device {index.device}, expected {shared.device} as {shared_name} is on")


def check_cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    *,
    steps: int,
    gates: int,
    context: Tensor | None,
    projection: Projection = NO_PROJECTION,
) -> None:
    """Raise TypeError or ValueError unless the arguments of :func:`dcrnn_fast.functional.cross_rnn` fit each other.

    ``gates`` is the cell's number of vectors a unit. The values of the indices are not read.
    """
    check_tensor("x0", x0, "floats [B, D]")
    check_memory("x0", x0)
    if context is not None:
        check_tensor("context", context, f"floats [{steps}, B, C]")
        check_memory("context", context)
    if x0.dim() != 2 or x0.shape[1] == 0:
        raise ValueError(f"x0: got shape {list(x0.shape)}, expected [B, D] with D >= 1")
    batch, dim = x0.shape
    banks = {"shared_weight": shared_weight, "shared_bias": shared_bias, "private_weight": private_weight, "private_bias": private_bias}
    for name, tensor in banks.items():
        check_tensor(name, tensor, "floats")
    check_alike("x0", x0, banks if context is None else {**banks, "context": context})
    check_banks("shared_weight", shared_weight, "private_weight", private_weight, index)
    check_banks("shared_bias", shared_bias, "private_bias", private_bias, index)
    if context is not None and (context.dim() != 3 or tuple(context.shape[:2]) != (steps, batch)):
        raise ValueError(f"context: got shape {list(context.shape)}, expected [{steps}, {batch}, C], one state before each step")
    columns = dim + (0 if context is None else context.shape[2])
    if any([part is not None for part in projection]):
        _check_places(index, dim, steps)
        columns = check_projection(projection, x0, index, gates=gates, columns=columns)
    if tuple(shared_weight.shape[1:]) != (gates, columns):
        raise ValueError(f"shared_weight: got shape {list(shared_weight.shape)}, expected [S, {gates}, {columns}]")
    if tuple(shared_bias.shape) != tuple(shared_weight.shape[:2]):
        raise ValueError(f"shared_bias: got shape {list(shared_bias.shape)}, expected {list(shared_weight.shape[:2])}")
    if tuple(private_bias.shape) != tuple(private_weight.shape[:3]):
        raise ValueError(f"private_bias: got shape {list(private_bias.shape)}, expected {list(private_weight.shape[:3])}")
    _check_places(index, dim, steps)


def _check_places(index: Tensor, dim: int, steps: int) -> None:
    if index.shape[1] != dim and index.shape[1] != steps * dim:  # symbolic sizes of a compiled graph do not support "in"
        raise ValueError(
            f"index: got {index.shape[1]} rows a task, expected D = {dim} (weights tied over steps) or steps * D = {steps * dim} (untied)"
        )


def check_projection(projection: Projection, x0: Tensor, index: Tensor, *, gates: int, columns: int) -> int:
    """The rank r. Raise TypeError or ValueError unless all three tensors are given and fit x0 and ``index``."""
    shared, private, places = projection
    if shared is None or private is None or places is None:
        absent = next(name for name, tensor in projection._asdict().items() if tensor is None)
        raise ValueError(f"{absent}: got None, expected a tensor: a projection has all three of {', '.join(projection._fields)}")
    for name, tensor in (("shared_projection", shared), ("private_projection", private)):
        check_tensor(name, tensor, "floats")
    check_alike("x0", x0, {"shared_projection": shared, "private_projection": private})
    check_banks("shared_projection", shared, "private_projection", private, places, index_name="projection_index")
    tasks, weight_steps = index.shape[0], index.shape[1] // x0.shape[1]
    if places.shape[0] != tasks:
        raise ValueError(f"projection_index: got {places.shape[0]} tasks, expected {tasks} as index {list(index.shape)} has")
    if places.shape[1] < weight_steps or places.shape[1] % weight_steps:
        raise ValueError(f"projection_index: got {places.shape[1]} rows a task, expected {weight_steps} * r for a rank r")
    if shared.dim() != 3 or tuple(shared.shape[1:]) != (gates, columns):
        raise ValueError(f"shared_projection: got shape {list(shared.shape)}, expected [M, {gates}, {columns}]")
    return places.shape[1] // weight_steps
