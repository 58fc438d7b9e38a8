"""Copies of the Triton kernels in which a wrong function takes the place of a right one, for tests that prove that a checker can fail.

A copy is loaded under a name of its own from the same files, so that neither the interpreter nor the compiler confuses the two.
"""

import itertools
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import triton
import triton.language as tl

import dcrnn_fast.kernels
from dcrnn_fast.kernels.common import add_product, bank_rows, dot, inside
from dcrnn_fast.kernels.cross_rnn_backward import gate_part, input_products, of_banks, x0_rest
from dcrnn_fast.kernels.low_rank import of_step, weight_tiles
from dcrnn_fast.kernels.low_rank_backward import add_slices
from dcrnn_fast.ops.cross_rnn import Saved
from dcrnn_fast.ops.registry import Implementation, register
from dcrnn_fast.ops.triton import functions

_numbers = itertools.count()


def mutant(name: str | None = None) -> tuple[str, Implementation]:
    """The operators of a copy in which ``wrong_<name>`` takes the place of the function ``name``: their namespace and implementation."""
    copy = _copy(name)
    return copy, register(copy, Saved.BOTH, functions(copy))


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
def wrong_bank_rows(is_shared, shared, private, SIZE: tl.constexpr):
    """Begins a private row with its second value."""
    return bank_rows(is_shared, shared, private + 1, SIZE)


def wrong_of_banks(rows, num_shared, dtype):
    """Leaves all tasks but the first out of the sum."""
    return of_banks(rows, num_shared, dtype)[0] - rows[1:, :, :num_shared].sum(0).to(dtype), of_banks(rows, num_shared, dtype)[1]


def wrong_input_products(n, left, x0, states, context):
    """Leaves out the last step."""
    return input_products(n._replace(L=n.L - 1), left, x0, states, context)


@triton.jit
def wrong_gate_gradient(dg, x, a, g):
    """Leaves out the derivative of the gate."""
    return tl.fma(dg * x * a, 1.0, 0.0)


@triton.jit
def wrong_add_gradient_product(
    acc, gradients, weight, row, n, columns, first_column, terms,
    D: tl.constexpr, K: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Leaves out the product's last BLOCK_K terms."""
    for start in range(0, terms - BLOCK_K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(gradients + row[:, None] * (G * D) + k[None, :])
        right = tl.load(weight + k[:, None] * K + (first_column + n)[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = dot(left, right, acc, PRECISION)
    return acc


@triton.jit
def wrong_x0_rest(acc, dx0, grad, d, activations, b, unit, B, T, steps, D: tl.constexpr, G: tl.constexpr, STATES: tl.constexpr):
    """Leaves out the last task's part of the gradient of x0."""
    x0_rest(acc, dx0, grad, d, activations, b, unit, B, T - 1, steps, D, G, STATES)


@triton.jit
def wrong_gate_part(
    acc, x0, grad, d, activations, gradients, bias_sums, b, unit, B, later, D: tl.constexpr, G: tl.constexpr, STATES: tl.constexpr
):
    """Takes each step for the last."""
    gate_part(acc, x0, grad, d, activations, gradients, bias_sums, b, unit, B, later * 0, D, G, STATES)


@triton.jit
def wrong_to_tf32(x):
    """Rounds nothing, so that the tensor core drops what is too long for it."""
    return x


@triton.jit
def wrong_weight_tiles(weight, n, D: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, BLOCK_K: tl.constexpr):
    """Leaves out the last column of the rank."""
    tiles = weight_tiles(weight, n, D, G, RANK, BLOCK_K)
    found = ()
    for i in tl.static_range(len(tiles)):
        found += (tl.where((tl.arange(0, BLOCK_K) < RANK - 1)[None, :], tiles[i], 0.0),)
    return found


@triton.jit
def wrong_add_slices(acc, left, tiles, gate: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr):
    """Leaves out the gate's dy."""
    return add_slices(acc, left, tiles, 0, G, PRECISION) if gate == 0 else acc


@triton.jit
def wrong_add_gradient(total, z_gradient, tiles, PRECISION: tl.constexpr):
    """Leaves out P^T dz + Q^T dy."""
    return total


@triton.jit
def wrong_of_step(parameters, at, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr):
    """Takes the first task's projection for every task."""
    weight, bias, _ = of_step(parameters, at, D, C, G, RANK)
    _, _, projection = of_step(parameters, at * 0, D, C, G, RANK)
    return weight, bias, projection
