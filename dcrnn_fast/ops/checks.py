"""Checks of the operators' tensors. csrc/checks.h has the same for what C++ and CUDA compute, with the same words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..support.tensors import FLOATING, check_alike, check_memory, check_tensor

MAX_ROWS = 2**24
"""The most rows of a bank of ``param_gather``, whose backward keeps a number for each."""

Named = tuple[str, Tensor, str]
"""A tensor's name, the tensor, and a letter for each of its sizes, such as "BD"."""


def check_tensors(like: tuple[str, Tensor], tensors: Sequence[Named], sizes: dict[str, int]) -> None:
    """Raise TypeError or ValueError unless each tensor is dense, of the dtype and on the device of ``like``, and fits the others.

    Args:
        like: a name and a tensor.
        tensors: in the order in which they are checked.
        sizes: the sizes that are known, by letter. Those that a tensor is the first to show are added.
    """
    for name, tensor, letters in tensors:
        check_tensor(name, tensor, f"floats [{', '.join(letters)}]")
        check_memory(name, tensor)
        if tensor is like[1]:
            check_dtype(name, tensor)
        check_alike(*like, {name: tensor})
        check_shape(name, tensor, letters, sizes)


def check_dtype(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless the operators compute in the tensor's dtype."""
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating dtype of at least 16 bits")


def check_shape(name: str, tensor: Tensor, letters: str, sizes: dict[str, int]) -> None:
    """Raise ValueError unless the tensor's sizes are those that are known of its letters; add those that are not known yet."""
    shape = tensor.shape
    if len(shape) != len(letters) or any([sizes.get(letter, size) != size for letter, size in zip(letters, shape, strict=True)]):
        known = ", ".join(f"{letter} = {sizes[letter]}" for letter in letters if letter in sizes)
        raise ValueError(f"{name}: got shape {list(shape)}, expected [{', '.join(letters)}]{' with ' * bool(known)}{known}")
    for letter, size in zip(letters, shape, strict=True):
        sizes.setdefault(letter, size)
