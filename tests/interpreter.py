"""Triton's interpreter without work that changes nothing. Interpreted kernels take most of the time of the tests.

The interpreter replaces the functions of ``triton.language`` again at each call of a helper function, where one time a launch is enough. It
computes each sum and product of 32-bit integers two times, the second time for a check of overflow that it makes in debug mode alone. It
makes the type of a block, the constants that are its shape, and the table of NumPy's dtypes anew for each operation. It finds out for each
sum, product and comparison that its operands have one type and one shape, and makes a block of a number anew. It takes a bfloat16 apart and
puts it together as a float32, which a table of all 65536 values gives too, and a float32 likewise, whose first 16 bits are its bfloat16.
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
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

PLACES = (
    (interpreter, "_patch_lang"),
    (interpreter, "_get_np_dtype"),
    (interpreter, "_convert_float"),
    (interpreter.interpreter_builder, "options"),
    (tl.block_type, "__init__"),
    (tl.tensor, "__init__"),
    (TritonSemantic, "binary_op_type_checking_impl"),
    (TritonSemantic, "broadcast_impl_value"),
    (TritonSemantic, "cast"),
)
"""What :func:`hasten` replaces."""

AS_TRITON_HAS_THEM = [getattr(*place, None) for place in PLACES]


def hasten() -> None:
    """Leave the work out, in this process. With a Triton whose interpreter lacks one of the places, nothing changes."""
    if None in AS_TRITON_HAS_THEM:
        return
    replace_functions, numpy_dtype, convert, options, make_block_type, make_tensor, match, broadcast, cast = AS_TRITON_HAS_THEM
    _put(
        [
            _once_a_launch(replace_functions),
            _looked_up(numpy_dtype),
            _by_bits(convert),
            replace(options, sanitize_overflow=False),
            _copied(make_block_type, _name_of_block),
            _tensor(make_tensor),
            _matched(match),
            _planned(broadcast),
            _given_back(cast),
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


def _by_bits(convert: Callable[..., Any]) -> Callable[..., Any]:
    """A bfloat16 becomes a float32 by a table, and a float32 without subnormal numbers the bfloat16 that begins with its bits."""
    table = convert(np.arange(2**16, dtype=np.uint16), tl.bfloat16, tl.float32, None)

    def converted(values: Any, given: tl.dtype, wanted: tl.dtype, rounding: Any) -> Any:
        if (given.name, wanted.name) == ("bf16", "fp32"):
            return table[values.view(np.uint16)]
        if (given.name, wanted.name, rounding) == ("fp32", "bf16", None):
            bits = values.view(np.uint32)
            if not (((bits & 0x7FFFFFFF) - 1).astype(np.uint32) < 0x7FFFFF).any():
                return (bits >> 16).astype(np.uint16)
        return convert(values, given, wanted, rounding)

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


def _given_back(cast: Callable[..., Any]) -> Callable[..., Any]:
    """Give a tensor back that has the type already."""

    def given_back(self: TritonSemantic, tensor: Any, wanted: tl.dtype, *rounding: Any, **named: Any) -> Any:
        same = tensor.type.scalar.name == wanted.scalar.name
        return tensor if same else cast(self, tensor, wanted, *rounding, **named)

    return given_back


Operands = Callable[..., tuple[Any, Any]]
"""A method that gives two operands one type or one shape."""


def _planned(broadcast: Operands) -> Operands:
    """Give two tensors one shape as others of their types were given it."""
    plans: dict[tuple[str, str], tuple[Any, Any]] = {}

    def filled(self: TritonSemantic, tensor: Any, wanted: Any) -> Any:
        if wanted is None:
            return tensor
        if tensor.type.is_block():
            return self.tensor(self.builder.create_broadcast(tensor.handle, wanted.shape), wanted)
        return self.tensor(self.builder.create_splat(wanted, tensor.handle), wanted)

    def planned(self: TritonSemantic, left: Any, right: Any) -> tuple[Any, Any]:
        types = left.type.name, right.type.name
        if types in plans:
            first, second = plans[types]
            return filled(self, left, first), filled(self, right, second)
        found = broadcast(self, left, right)
        if all(len(before.shape) in (0, len(after.shape)) for before, after in zip((left, right), found, strict=True)):
            plans[types] = tuple(None if after is before else after.type for before, after in zip((left, right), found, strict=True))
        return found

    return planned


def _matched(match: Operands) -> Operands:
    """Compare the types of two operands once. A number beside a tensor becomes the block that it became beside another one of the type."""
    of_one_type: set[Any] = set()
    blocks: dict[Any, Any] = {}

    def beside(self: TritonSemantic, number: float, tensor: Any, first: bool, flags: Any, options: Any) -> tuple[Any, Any]:
        bits = number.hex() if isinstance(number, float) else number  # 0.0 == -0.0
        key = first, type(number), bits, tensor.type.name, flags, *options.items()
        if key not in blocks:
            found = match(self, *((number, tensor) if first else (tensor, number)), *flags, **options)
            block, same = found if first else reversed(found)
            if same is not tensor:
                return found
            block.handle.data.flags.writeable = False
            blocks[key] = block
        return (blocks[key], tensor) if first else (tensor, blocks[key])

    def matched(self: TritonSemantic, left: Any, right: Any, *flags: Any, **options: Any) -> tuple[Any, Any]:
        left_is_tensor, right_is_tensor = isinstance(left, tl.tensor), isinstance(right, tl.tensor)
        if left_is_tensor and isinstance(right, int | float):
            return beside(self, right, left, False, flags, options)
        if right_is_tensor and isinstance(left, int | float):
            return beside(self, left, right, True, flags, options)
        if not (left_is_tensor and right_is_tensor):
            return match(self, left, right, *flags, **options)
        types = left.type.name, right.type.name, flags, *options.items()
        if types in of_one_type:
            return self.broadcast_impl_value(left, right)
        found = match(self, left, right, *flags, **options)
        if found[0].dtype == left.dtype and found[1].dtype == right.dtype:
            of_one_type.add(types)
        return found

    return matched
