"""Checks of the operators' tensors. Each message names the argument, what came and what was expected."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..support.checks import FLOATING, check_alike, check_memory, check_tensor
from ..support.tracing import values_of

_checked_index: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""The indices on a GPU that were checked, each with its version and the number of rows: reading one again would wait for the device."""

MAX_ROWS = 2**24
"""The most rows of a bank: the backward of a gather keeps a number for each."""


def check_arguments(arguments: Any) -> None:
    """Raise TypeError, ValueError or IndexError unless the arguments of an operator fit each other."""
    arguments.check_shapes()
    for index in arguments.indices():
        check_index(*index)


def check_index(index: Tensor, rows: int, name: str = "index", letters: str = "S + P") -> None:
    """Raise IndexError unless all values of ``index`` are in [0, rows). An index on a GPU is read once, and again after a change."""
    values = values_of(index, 2)
    if values is not None and values.numel() and not index_is_checked(index, rows):
        low, high = (int(bound) for bound in values.aminmax())
        if low < 0 or high >= rows:
            raise IndexError(f"{name}: got {low if low < 0 else high}, expected values in [0, {letters}) = [0, {rows})")
        if remembers(index):
            _checked_index[index] = (index._version, rows)


def index_is_checked(index: Tensor, rows: int) -> bool:
    """Whether :func:`check_index` has passed this index on a GPU for so many rows, and nobody has changed it since."""
    return remembers(index) and _checked_index.get(index) == (index._version, rows)


def remembers(index: Tensor) -> bool:
    """Whether an index is read once: on a GPU, if PyTorch counts its changes."""
    return not (index.is_cpu or index.is_inference())


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
