"""What a call with arguments that do not fit is answered with, and checks of arguments that the contracts of all operators use."""

from typing import Any

import torch
from torch import Tensor

from ..strategies import DTYPES

Arguments = dict[str, Any]


class ContractError(Exception):
    """The arguments do not fit the contract."""


class StrayIndexError(ContractError):
    """They fit but for an index out of range. A GPU's kernels, which cannot raise, answer with NaN."""


def hold(holds: bool, words: str) -> None:
    if not holds:
        raise ContractError(words)


def is_shaped(arguments: Arguments, name: str, *shape: int | None) -> Tensor:
    value = arguments[name]
    hold(isinstance(value, Tensor), f"{name} is no tensor")
    fits = value.dim() == len(shape) and all(want in (None, have) for have, want in zip(value.shape, shape, strict=True))
    hold(fits, f"{name} is {list(value.shape)} in place of {list(shape)}")
    return value


def same_floats(arguments: Arguments, *given: str) -> None:
    dtypes = {arguments[name].dtype for name in given if arguments.get(name) is not None}
    hold(len(dtypes) == 1 and dtypes <= set(DTYPES.values()), f"dtypes {dtypes}")


def index_in(index: Tensor, rows: int) -> None:
    hold(index.dtype == torch.int32, "index is not int32")
    if not bool(((index >= 0) & (index.long() < rows)).all()):
        raise StrayIndexError("index out of range")
