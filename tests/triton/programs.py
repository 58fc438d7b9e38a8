"""The interpreter's programs in another order, and kernels whose launches are recorded instead of made."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import torch
from triton.runtime import interpreter

from dcrnn_fast.kernels import common

Program = tuple[int, int, int]


@contextmanager
def ordered(order: Callable[[list[Program]], list[Program]]) -> Iterator[None]:
    """Inside the block, interpreted kernels run their programs as ``order`` puts them; it gets them in the usual order."""
    builder = interpreter.interpreter_builder
    set_grid_dim, set_grid_idx = builder.set_grid_dim, builder.set_grid_idx
    waiting: list[Program] = []

    def remember(*grid: int) -> None:
        set_grid_dim(*grid)
        waiting[:] = order(list(product(*map(range, grid))))[::-1]

    builder.set_grid_dim, builder.set_grid_idx = remember, lambda *program: set_grid_idx(*waiting.pop())
    try:
        yield
    finally:
        del builder.set_grid_dim, builder.set_grid_idx


def backwards(programs: list[Program]) -> list[Program]:
    """The last program first."""
    return programs[::-1]


def shuffled(programs: list[Program]) -> list[Program]:
    """A random order, the same in every run."""
    return random.Random(len(programs)).sample(programs, len(programs))


@dataclass(frozen=True)
class Launch:
    """A launch that was recorded: the kernel, its grid, its arguments by name, and the options of the compiler."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.fn.__name__

    @property
    def integers(self) -> dict[str, Any]:
        """The arguments that are numbers, without the constants that the kernel is compiled for."""
        constants = interpreter.GridExecutor(self.kernel.fn, self.kernel.arg_names, self.grid).constexprs
        given = {name: value for name, value in self.arguments.items() if name not in constants}
        return {name: value for name, value in given.items() if value is not None and not isinstance(value, torch.Tensor)}


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Inside the block, the package's launches are recorded and nothing runs, so that tensors may be of the device "meta"."""
    launches: list[Launch] = []

    def record(kernel: Any, grid: Any, **given: Any) -> None:
        shape = grid(given) if callable(grid) else grid
        arguments = {name: given.pop(name) for name in kernel.arg_names}
        launches.append(Launch(kernel, shape, arguments, given))

    with mock.patch.object(common, "launch", record):
        yield launches


def small_tiles() -> AbstractContextManager[Any]:
    """Inside the block, interpreted kernels have tiles of 16 rows, columns and products: several programs in each dimension of a grid."""
    return mock.patch.object(common, "INTERPRETED_TILE", common.Tile(16, 16, 16, 4, 1))


class _Address:
    """A tensor that has an address and no memory."""

    def __init__(self, tensor: torch.Tensor, place: int) -> None:
        self.dtype, self.bytes, self.place = tensor.dtype, tensor.numel() * tensor.element_size(), place

    def data_ptr(self) -> int:
        return (self.place + 1) << 48


def run_without_memory(launch: Launch, programs: list[Program], index: int) -> None:
    """Compute every address that some programs of a launch would read or write. Each integer that they read is ``index``; floats are 0.

    Every other sum of :mod:`dcrnn_fast.kernels.param_gather` finds one place that reads its row, the last one.

    Raises:
        triton.runtime.errors.InterpreterError: an address is outside of every tensor, or an operation on 32-bit integers overflows.
    """
    builder, executor = (
        interpreter.interpreter_builder,
        interpreter.GridExecutor(launch.kernel.fn, launch.kernel.arg_names, (len(programs),)),
    )
    addresses: dict[int, _Address] = {}  # a tensor that is given twice has one address

    def address(value: Any) -> Any:
        return addresses.setdefault(id(value), _Address(value, len(addresses))) if isinstance(value, torch.Tensor) else value

    arguments = {name: address(value) for name, value in launch.arguments.items()}
    names = {one.place + 1: name for name, one in arguments.items() if isinstance(one, _Address)}
    sizes = np.zeros(len(addresses) + 2, dtype=np.uint64)
    sizes[1:-1] = [one.bytes for one in addresses.values()]

    def check(pointers: Any, mask: Any) -> None:
        used = np.broadcast_to(pointers.data, np.broadcast_shapes(pointers.data.shape, mask.data.shape))
        used = used[np.broadcast_to(mask.data, used.shape).astype(bool)]
        tensor, offset = used >> np.uint64(48), used & np.uint64(2**48 - 1)
        if used.size and not (offset < sizes[np.minimum(tensor, len(sizes) - 1).astype(int)]).all():
            raise AssertionError(f"{launch.name} leaves a tensor at program {builder.grid_idx}")

    def integers(pointers: Any, mask: Any) -> Any:
        """What is read at these addresses."""
        if "ends" not in launch.arguments or not mask.any():
            return index
        count, (at, *_) = launch.arguments["order"].numel(), np.broadcast_arrays(pointers, mask)[0][np.broadcast_to(mask, pointers.shape)]
        if names[int(at >> np.uint64(48))] == "ends":
            return count - 1 + (pointers & np.uint64(2**48 - 1)).astype(np.int64) // 8 % 2
        return count - 1

    def load(pointers: Any, mask: Any, other: Any, *options: Any) -> Any:
        check(pointers, mask)
        element = pointers.get_element_ty()
        absent = np.zeros((), dtype=interpreter._get_np_dtype(element)) if other is None else other.data
        values = np.where(mask.data, integers(pointers.data, mask.data) if element.is_int() else 0, absent)
        return interpreter.TensorHandle(np.broadcast_to(values, pointers.data.shape).astype(absent.dtype), element)

    def store(pointers: Any, value: Any, mask: Any, *options: Any) -> None:
        check(pointers, mask)

    def chosen(_: list[Program]) -> list[Program]:
        builder.grid_dim = (*launch.grid, 1, 1)[:3]
        return list(programs)

    before = builder.options
    builder.options = replace(before, debug=True, sanitize_overflow=True)  # 32-bit sums and products assert that they do not overflow
    builder.create_masked_load, builder.create_masked_store = load, store
    builder.create_dot = lambda left, right, acc, *options: acc
    executor._init_args_hst = lambda positional, named: (positional, named)
    executor._restore_args_dev = lambda *arguments: None
    try:
        with ordered(chosen):
            executor(**arguments)
    finally:
        builder.options = before
        del builder.create_masked_load, builder.create_masked_store, builder.create_dot


def corners(grid: tuple[int, ...]) -> list[Program]:
    """The programs at the ends of each dimension of a grid."""
    wide = (*grid, 1, 1)[:3]
    return sorted(set(product(*({0, size - 1} for size in wide))))
