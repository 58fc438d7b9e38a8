"""Triton's interpreter without work that changes nothing. Interpreted kernels take most of the time of the tests.

The interpreter replaces the functions of ``triton.language`` again at each call of a helper function, where one time a launch is enough. It
computes each sum and product of 32-bit integers two times, the second time for a check of overflow that it makes in debug mode alone. It
makes the type of a block, the constants that are its shape, and the table of NumPy's dtypes anew for each operation. It takes a bfloat16
apart and puts it together as a float32, which a table of all 65536 values gives too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

PLACES = (
    (interpreter, "_patch_lang"),
    (interpreter, "_get_np_dtype"),
    (interpreter, "_convert_float"),
    (interpreter.interpreter_builder, "options"),
    (tl.block_type, "__init__"),
    (tl.tensor, "__init__"),
)
"""What :func:`hasten` replaces."""

AS_TRITON_HAS_THEM = [getattr(*place, None) for place in PLACES]


def hasten() -> None:
    """Leave the work out, in this process. With a Triton whose interpreter lacks one of the places, nothing changes."""
    if None in AS_TRITON_HAS_THEM:
        return
    replace_functions, numpy_dtype, convert, options, make_block_type, make_tensor = AS_TRITON_HAS_THEM
    _put(
        [
            _once_a_launch(replace_functions),
            _looked_up(numpy_dtype),
            _from_a_table(convert),
            replace(options, sanitize_overflow=False),
            _copied(make_block_type, _name_of_block),
            _tensor(make_tensor),
        ]
    )


@contextmanager
def as_triton_has_it() -> Iterator[None]:
    """Inside the block, the interpreter does all its work."""
    before = [getattr(*place) for place in PLACES]
    _put(AS_TRITON_HAS_THEM)
    try:
        yield
    finally:
        _put(before)


def _put(values: list[Any]) -> None:
    for (owner, name), value in zip(PLACES, values, strict=True):
        setattr(owner, name, value)


def _once_a_launch(replace_functions: Callable[[FunctionType], Any]) -> Callable[[FunctionType], Any]:
    """Replace the functions of the modules that a function sees, unless that was done in this launch."""
    replaced: set[int] = set()

    @cache
    def modules_of(function: FunctionType) -> frozenset[int]:
        return frozenset(id(value) for value in function.__globals__.values() if inspect.ismodule(value) and value in (tl, tl.core))

    class Scope(interpreter._LangPatchScope):
        def restore(self) -> None:
            super().restore()
            replaced.clear()

    def once(function: FunctionType) -> Any:
        scope = Scope()
        if not modules_of(function) <= replaced:
            scope._changes = replace_functions(function)._changes
            replaced.update(modules_of(function))
        return scope

    return once


def _looked_up(numpy_dtype: Callable[[tl.dtype], Any]) -> Callable[[tl.dtype], Any]:
    by_name: dict[str, Any] = {}

    def looked_up(dtype: tl.dtype) -> Any:
        if dtype.name not in by_name:
            by_name[dtype.name] = numpy_dtype(dtype)
        return by_name[dtype.name]

    return looked_up


def _from_a_table(convert: Callable[..., Any]) -> Callable[..., Any]:
    table = convert(np.arange(2**16, dtype=np.uint16), tl.bfloat16, tl.float32, None)

    def converted(values: Any, given: tl.dtype, wanted: tl.dtype, rounding: Any) -> Any:
        widens = given.name == "bf16" and wanted.name == "fp32"
        return table[values.view(np.uint16)] if widens else convert(values, given, wanted, rounding)

    return converted


def _copied(construct: Callable[..., None], key: Callable[..., Any]) -> Callable[..., None]:
    """A constructor that gives an object the attributes of the first one of its key."""
    first: dict[Any, dict[str, Any]] = {}

    def copy(self: Any, *given: Any) -> None:
        name = key(*given)
        if name in first:
            self.__dict__.update(first[name])
        else:
            construct(self, *given)
            first[name] = dict(self.__dict__)

    return copy


def _name_of_block(element_ty: tl.dtype, shape: Any) -> Any:
    return element_ty.name, tuple(size.value if isinstance(size, tl.constexpr) else size for size in shape)


def _tensor(construct: Callable[..., None]) -> Callable[..., None]:
    of_type = _copied(construct, lambda handle, type: type.name)

    def make(self: tl.tensor, handle: Any, type: tl.dtype) -> None:
        of_type(self, handle, type)
        self.handle, self.type = handle, type

    return make
