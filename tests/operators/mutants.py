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
from dcrnn_fast.kernels.common import add_product
from dcrnn_fast.kernels.cross_rnn_backward import gate_part, of_banks
from dcrnn_fast.kernels.low_rank import of_step
from dcrnn_fast.ops.registry import Implementation, register
from dcrnn_fast.ops.triton import functions

_numbers = itertools.count()


def mutant(name: str | None = None) -> tuple[str, Implementation]:
    """The operators of a copy in which ``wrong_<name>`` takes the place of the function ``name``: their namespace and implementation."""
    copy = _copy(name)
    return copy, register(copy, functions(copy))


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


def wrong_of_banks(rows, num_shared, dtype):
    """Leaves all tasks but the first out of the sum."""
    return of_banks(rows, num_shared, dtype)[0] - rows[1:, :, :num_shared].sum(0).to(dtype), of_banks(rows, num_shared, dtype)[1]


@triton.jit
def wrong_gate_gradient(dg, x, a, g):
    """Leaves out the derivative of the gate."""
    return tl.fma(dg * x * a, 1.0, 0.0)


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
def wrong_add_gradient(total, z_gradient, tiles, PRECISION: tl.constexpr):
    """Leaves out P^T dz + Q^T dy."""
    return total


@triton.jit
def wrong_of_step(parameters, at, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr):
    """Takes the first task's projection for every task."""
    weight, bias, _ = of_step(parameters, at, D, C, G, RANK)
    _, _, projection = of_step(parameters, at * 0, D, C, G, RANK)
    return weight, bias, projection
