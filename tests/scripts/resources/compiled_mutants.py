"""Compiles a kernel with each of the planted defects, for sm_90, and prints whether it compiles. Else no GPU could find it."""

import os
import sys
from importlib import import_module

os.environ.pop("TRITON_INTERPRET", None)

from triton import JITFunction

from scripts.resources import triton_compile
from tests.operators import mutants

BLOCKS = {"BLOCK_B": 32, "BLOCK_D": 32, "BLOCK_K": 16, "BLOCK_R": 16, "BLOCK_S": 8, "BLOCK_N": 128, "RANK": 24, "SLICES": 2}


def called(function, found):
    """Adds a function of a kernel, and those that it calls, itself or through others."""
    if function not in found:
        found.append(function)
        for other in map(function.fn.__globals__.get, function.fn.__code__.co_names):
            if isinstance(other, JITFunction):
                called(other, found)
    return found


def main():
    for name, wrong in vars(mutants).items():
        if not name.startswith("wrong_"):
            continue
        package, _ = mutants._copy(name.removeprefix("wrong_"))
        for kernel, (module, function) in triton_compile.KERNELS.items():  # noqa: B007
            copy = import_module(f"{package}.{module}")
            if wrong in called(getattr(copy, function), []):
                break
        else:
            raise SystemExit(f"{name}: no kernel calls it")
        sys.modules[f"kernels.{module}"] = copy
        job = triton_compile.job_of(kernel, "tf32" if "tf32" in name else "bfloat16", 90, 4, **BLOCKS)
        sys.stdout.write(f"{name} in {function}: {triton_compile.compiled(job).get('error', 'compiles')}\n")


if __name__ == "__main__":
    main()
