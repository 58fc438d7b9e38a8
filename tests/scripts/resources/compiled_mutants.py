"""Compiles a kernel with each of the planted defects, for sm_90, and prints whether it compiles. Else no GPU could find it."""

import os
import sys

os.environ.pop("TRITON_INTERPRET", None)

from triton import JITFunction

from scripts.resources import triton_report
from tests.operators import mutants


def called(function, found):
    """Adds a function of a kernel, and those that it calls, itself or through others."""
    if function not in found:
        found.append(function)
        for other in map(function.fn.__globals__.get, function.fn.__code__.co_names):
            if isinstance(other, JITFunction):
                called(other, found)
    return found


def first_that_calls(wrong, package, kind):
    """The first kernel of any call that a function of it is wrong in."""
    for rank in (0, 32):
        for call in (triton_report.HEAVIEST, triton_report.VARIANTS["nothing saved"]):
            for job in triton_report.jobs_of(package, kind, 90, rank, tiles=slice(-1, None), **call):
                kernel = triton_report.kernel_of(package, job)
                if wrong in called(triton_report.jit_function(kernel), []):
                    return job
    raise SystemExit(f"{wrong.fn.__name__}: no kernel calls it")


def main():
    for name, wrong in vars(mutants).items():
        if name.startswith("wrong_") and isinstance(wrong, JITFunction):
            package = mutants._copy(name.removeprefix("wrong_"))
            job = first_that_calls(wrong, package, "tf32" if "tf32" in name else "bfloat16")
            sys.stdout.write(f"{name} in {job.kernel}: {triton_report.compiled(package, job).get('error', 'compiles')}\n")


if __name__ == "__main__":
    main()
