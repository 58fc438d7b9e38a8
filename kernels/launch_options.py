"""What every launch needs: the device, the alignment of rows, the precision of a float32 product, and the launch itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton

from . import INTERPRETED


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """The tensor's GPU as the current one; a launch goes to its current stream."""
    return torch.cuda.device_of(tensor)


def launch(kernel: Any, grid: Sequence[int], **arguments: Any) -> None:
    """Launch a kernel on the current device; a graph that is traced has the launch as a node."""
    (kernel if INTERPRETED else wrap_triton(kernel))[grid](**arguments)


def divide_up(number: int, by: int) -> int:
    """The quotient, rounded up. On the host, Triton's ``cdiv`` takes as long as a launch."""
    return -(-number // by)


def alignment(sizes: tuple[int, ...], *banks: Tensor) -> int:
    """The largest power of two, at most 16, that divides the bytes of rows of ``sizes`` values and the addresses of ``banks``.

    A tensor that is traced has no address; its storage begins on a boundary of more than 16 bytes, as PyTorch's allocators give it.
    """
    size = banks[0].element_size()
    starts = [bank.storage_offset() * size if _is_traced(bank) else bank.data_ptr() for bank in banks]
    known = [value for value in (*(count * size for count in sizes), *starts) if isinstance(value, int)]
    return gcd(16, *known) if len(known) == len(sizes) + len(starts) else size  # a size that a graph leaves open promises nothing


def _is_traced(tensor: Tensor) -> bool:
    return torch.compiler.is_compiling() or type(tensor) not in (Tensor, torch.nn.Parameter)


def precision(dtype: torch.dtype, allow_tf32: bool) -> str:
    """How a product of values of ``dtype`` is computed: "ieee", or "tf32" for float32 where that is allowed."""
    return "tf32" if dtype == torch.float32 and allow_tf32 else "ieee"
