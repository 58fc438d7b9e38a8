"""Copies of the Triton kernels in which a wrong function takes the place of a right one, for tests that prove that a checker can fail.

A copy is loaded under a name of its own from the same files, so that neither the interpreter nor the compiler confuses the two.
"""

import importlib
import itertools
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import triton
import triton.language as tl

import dcrnn_fast.kernels
from dcrnn_fast.kernels.cross_rnn_backward import _gate
from dcrnn_fast.kernels.tiles import add_product, bank_rows, dot, inside
from dcrnn_fast.operators import Implementation, Keep, register
from dcrnn_fast.operators.triton import functions

_numbers = itertools.count()


def mutant(name: str | None = None) -> Implementation:
    """The operators of a copy in which ``wrong_<name>`` takes the place of the function ``name``."""
    package_name = f"mutant_kernels_{next(_numbers)}"
    path = Path(dcrnn_fast.kernels.__file__)
    spec = spec_from_file_location(package_name, path, submodule_search_locations=[str(path.parent)])
    sys.modules[package_name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    launches = importlib.import_module(f"{package_name}.launches")
    if name is not None:
        modules = [module for key, module in sys.modules.items() if key.startswith(f"{package_name}.") and hasattr(module, name)]
        assert modules, f"the kernels have no function {name}"
        for module in modules:
            setattr(module, name, globals()[f"wrong_{name}"])
    return register(package_name, Keep.BOTH, functions(launches))


@triton.jit
def wrong_add_product(acc, left, right, columns, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr):
    """Reads one column too many."""
    return add_product(acc, left, right, columns + 1, PRECISION, BLOCK_K)


@triton.jit
def wrong_inside(b, B, n, N):
    """Leaves out the last column."""
    return inside(b, B, n, N - 1)


@triton.jit
def wrong_bank_rows(shared, private, index, unit, num_shared, num_private, row_size, task, ALIGN: tl.constexpr):
    """Reads the first task's private rows for every task."""
    return bank_rows(shared, private, index, unit, num_shared, num_private, row_size, task * 0, ALIGN)


@triton.jit
def wrong__dq(dg, x, a, g):
    """Leaves out the derivative of the gate."""
    return tl.fma(dg * x * a, 1.0, 0.0)


@triton.jit
def wrong_add_gradient_product(
    acc, gradients, shared_weight, private_weight, index, row, n, columns, first_column, D, K, num_shared, num_private, task,
    G: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Adds W^T da without V^T dq."""
    for start in range(0, D, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(gradients + row[:, None] * (G * D) + k[None, :], mask=(k < D)[None, :], other=0.0)
        weight, _ = bank_rows(shared_weight, private_weight, index, tl.minimum(k, D - 1), num_shared, num_private, G * K, task, ALIGN)
        right = tl.load(weight[:, None] + (first_column + n)[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = dot(left, right, acc, PRECISION)
    return acc


@triton.jit
def wrong__gate(d, x0, activations, dx0, gradients, bias_sums, b, unit, B, D, G: tl.constexpr, ADD: tl.constexpr):
    """Overwrites the gradient of x0 instead of adding to it."""
    _gate(d, x0, activations, dx0, gradients, bias_sums, b, unit, B, D, G, False)
