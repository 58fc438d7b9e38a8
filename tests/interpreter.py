"""Triton's interpreter without work that changes nothing. Interpreted kernels take most of the time of the tests.

The interpreter replaces the functions of ``triton.language`` again at each call of a helper function, where one time a launch is enough. It
computes each sum and product of 32-bit integers twice, the second time for a check of overflow that it makes in debug mode alone. It makes
a table of NumPy's dtypes each time that it looks one up.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import FunctionType
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

AS_TRITON_HAS_IT = interpreter._patch_lang, interpreter._get_np_dtype, interpreter.interpreter_builder.options
"""What :func:`hasten` replaces."""


def hasten() -> None:
    """Leave the work out, in this process."""
    replaced: set[int] = set()  # the modules whose functions are replaced at present
    replace_functions, numpy_dtype, options = AS_TRITON_HAS_IT

    @cache
    def modules_of(function: FunctionType) -> frozenset[int]:
        return frozenset(id(value) for value in function.__globals__.values() if inspect.ismodule(value) and value in (tl, tl.core))

    class Scope(interpreter._LangPatchScope):
        def restore(self) -> None:
            super().restore()
            replaced.clear()

    def once_a_launch(function: FunctionType) -> Any:
        scope = Scope()
        if not modules_of(function) <= replaced:
            scope._changes = replace_functions(function)._changes
            replaced.update(modules_of(function))
        return scope

    by_name: dict[str, Any] = {}

    def looked_up(dtype: Any) -> Any:
        if dtype.name not in by_name:
            by_name[dtype.name] = numpy_dtype(dtype)
        return by_name[dtype.name]

    interpreter._patch_lang, interpreter._get_np_dtype = once_a_launch, looked_up
    interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)


@contextmanager
def as_triton_has_it() -> Iterator[None]:
    """Inside the block, the interpreter does all its work."""
    hastened = interpreter._patch_lang, interpreter._get_np_dtype
    options = interpreter.interpreter_builder.options
    interpreter._patch_lang, interpreter._get_np_dtype, interpreter.interpreter_builder.options = AS_TRITON_HAS_IT
    try:
        yield
    finally:
        interpreter._patch_lang, interpreter._get_np_dtype = hastened
        interpreter.interpreter_builder.options = options
