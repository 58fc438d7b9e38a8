"""Triton's interpreter without work that changes nothing: interpreted kernels take most of the time of the tests.

The interpreter replaces the functions of ``triton.language`` again at each call of a helper function, where one time a launch is enough. It
computes each sum and product of 32-bit integers two times, the second time for a check of overflow that it makes in debug mode alone. It
makes the table of NumPy's dtypes anew for each operation.
"""

import inspect
from dataclasses import replace
from functools import cache

import triton.language as tl
from triton.runtime import interpreter


def hasten() -> None:
    """Leave the work out, in this process. With a Triton whose interpreter lacks one of the places, nothing changes."""
    if not all(hasattr(interpreter, name) for name in ("_patch_lang", "_LangPatchScope", "_get_np_dtype", "interpreter_builder")):
        return
    interpreter._patch_lang = _once_a_launch(interpreter._patch_lang)
    numpy_dtype, by_name = interpreter._get_np_dtype, {}
    interpreter._get_np_dtype = lambda dtype: by_name.get(dtype.name) or by_name.setdefault(dtype.name, numpy_dtype(dtype))
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)


def _once_a_launch(replace_functions):
    """Replace the functions of the modules that a function sees, unless that was done in this launch."""
    replaced = set()

    @cache
    def modules_of(function):
        return frozenset(id(value) for value in function.__globals__.values() if inspect.ismodule(value) and value in (tl, tl.core))

    class Scope(interpreter._LangPatchScope):
        def restore(self):
            super().restore()
            replaced.clear()

    def once(function):
        scope = Scope()
        if not modules_of(function) <= replaced:
            scope._changes = replace_functions(function)._changes
            replaced.update(modules_of(function))
        return scope

    return once
