"""Copies of the Triton kernels in which a wrong function takes the place of a right one, for tests that prove that a checker can fail.

A copy is loaded under a name of its own from the same files, so that neither the interpreter nor the compiler confuses the two.
"""

import itertools
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

import dcrnn_fast.kernels
from dcrnn_fast.kernels.common import add_product, bank_rows, dot, inside
from dcrnn_fast.kernels.cross_rnn_backward import _gate
from dcrnn_fast.kernels.low_rank import of_step, weight_tiles
from dcrnn_fast.kernels.low_rank_backward import _add_slices
from dcrnn_fast.kernels.param_gather import param_gather_readers, param_gather_sum
from dcrnn_fast.ops.registry import Implementation, Keep, register
from dcrnn_fast.ops.triton import functions

_numbers = itertools.count()


def mutant(name: str | None = None) -> Implementation:
    """The operators of a copy in which ``wrong_<name>`` takes the place of the function ``name``."""
    copy = _copy(name)
    return register(copy, Keep.BOTH, functions(copy))


def mutant_operators(name: str | None = None) -> Any:
    """The same, as a namespace of ``torch.ops``."""
    copy = _copy(name)
    register(copy, Keep.BOTH, functions(copy))
    return getattr(torch.ops, copy)


def _copy(name: str | None) -> str:
    package_name = f"mutant_kernels_{next(_numbers)}"
    path = Path(dcrnn_fast.kernels.__file__)
    spec = spec_from_file_location(package_name, path, submodule_search_locations=[str(path.parent)])
    sys.modules[package_name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    functions(package_name)  # which imports its modules
    if name is not None:
        modules = [module for key, module in sys.modules.items() if key.startswith(f"{package_name}.") and hasattr(module, name)]
        assert modules, f"the kernels have no function {name}"
        for module in modules:
            setattr(module, name, globals()[f"wrong_{name}"])
    return package_name


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
def wrong_param_gather_readers(
    index, readers, ranges, T, R, num_shared, num_private, BLOCK_S: tl.constexpr, BLOCK_R: tl.constexpr
):  # fmt: skip
    """Lists the places of the first task alone."""
    param_gather_readers(index, readers, ranges, 1, R, num_shared, num_private, BLOCK_S, BLOCK_R)


@triton.jit
def wrong_param_gather_sum(
    grad, first_part, bias_rows, readers, ranges, shared, private, shared_bias, private_bias,
    R, K, parts, task_stride, part_stride, row_stride, gate_stride, first_stride, bank_rows, num_shared,
    G: tl.constexpr, FIRST: tl.constexpr, BIAS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Leaves out the last part of each place's gradient."""
    param_gather_sum(
        grad, first_part, bias_rows, readers, ranges, shared, private, shared_bias, private_bias,
        R, K, parts - 1, task_stride, part_stride, row_stride, gate_stride, first_stride, bank_rows, num_shared,
        G, FIRST, BIAS, ALIGN, BLOCK_S, BLOCK_N,
    )  # fmt: skip


@triton.jit
def wrong__dq(dg, x, a, g):
    """Leaves out the derivative of the gate."""
    return tl.fma(dg * x * a, 1.0, 0.0)


@triton.jit
def wrong_add_gradient_product(
    acc, gradients, weight, row, n, columns, first_column, D, K, G: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Leaves out the product's last BLOCK_K terms."""
    for start in range(0, G * D - BLOCK_K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(gradients + row[:, None] * (G * D) + k[None, :])
        right = tl.load(weight + k[:, None] * K + (first_column + n)[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = dot(left, right, acc, PRECISION)
    return acc


@triton.jit
def wrong_add_dx0(total, d, activations, b, unit, B, D, G: tl.constexpr):
    """Leaves out a step's part of the gradient of x0."""
    return total


@triton.jit
def wrong__gate(
    d, x0, activations, terms, gradients, bias_sums, b, unit, B, D, G: tl.constexpr, ADD: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Overwrites the sums of x0's gradient instead of adding to them."""
    _gate(d, x0, activations, terms, gradients, bias_sums, b, unit, B, D, G, ADD, True)


@triton.jit
def wrong_to_tf32(x):
    """Rounds nothing, so that the tensor core drops what is too long for it."""
    return x


@triton.jit
def wrong_weight_tiles(weight, n, D, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, BLOCK_K: tl.constexpr):
    """Leaves out the last column of the rank."""
    tiles = weight_tiles(weight, n, D, G, RANK, SLICES, BLOCK_K)
    found = ()
    for i in tl.static_range(G * SLICES):
        found += (tl.where((tl.arange(0, BLOCK_K) < RANK - 1)[None, :], tiles[i], 0.0),)
    return found


@triton.jit
def wrong__add_slices(acc, left, tiles, gate: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr):
    """Leaves out the gate's dy."""
    return _add_slices(acc, left, tiles, 0, SLICES, PRECISION) if gate == 0 else acc


@triton.jit
def wrong_add_gradient(total, z_gradient, tiles, PRECISION: tl.constexpr):
    """Leaves out P^T dz + Q^T dy."""
    return total


@triton.jit
def wrong_of_task(weight, bias, projection, task, D, K, steps, G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr):
    """Takes the first task's projection for every task."""
    own_weight, own_bias, _ = of_step(weight, bias, projection, task, D, K, G, RANK, False)
    return own_weight, own_bias, projection
