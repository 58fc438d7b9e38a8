"""The operator ``param_gather``: what its arguments must satisfy, the shapes of its results, and its derivative.

Its backward is linear, and the derivative of the backward is ``param_gather`` again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reference.operators import param_gather as plain
from ..support.tensors import check_memory, check_tensor
from ..support.tracing import values_of
from .autograd import register_derivative
from .checks import MAX_ROWS, check_alike, check_dtype, check_shape

INPUTS = ("shared", "private")
"""The differentiable arguments, in the order of the gradients."""
SCHEMA = "(Tensor shared, Tensor private, Tensor index) -> Tensor"
SCHEMA_BACKWARD = "(Tensor grad, Tensor index, SymInt num_shared, SymInt num_private) -> (Tensor, Tensor)"


def check(shared: Tensor, private: Tensor, index: Tensor) -> None:
    """Raise TypeError or ValueError unless the arguments fit each other."""
    check_tensor("index", index, "int32 [T, R]")
    check_tensor("shared", shared, "floats [S, ...]")
    check_tensor("private", private, "floats [T, P, ...]")
    for name, tensor in (("shared", shared), ("private", private)):
        check_memory(name, tensor)
    check_dtype("shared", shared)
    check_alike("shared", shared, {"private": private})
    check_index_tensor(index, "shared", shared)
    if shared.dim() < 1 or private.dim() != shared.dim() + 1 or private.shape[2:] != shared.shape[1:]:
        raise ValueError(
            f"private: got shape {list(private.shape)}, expected [T, P, ...] with the trailing sizes of shared [S, ...], "
            f"which is {list(shared.shape)}"
        )
    if private.shape[0] != index.shape[0]:
        raise ValueError(f"private: got {private.shape[0]} tasks, expected {index.shape[0]} as index {list(index.shape)} has")
    check_rows(shared.shape[0], private.shape[1], index, "shared, private")


def check_index_tensor(index: Tensor, name: str, other: Tensor) -> None:
    """Raise TypeError or ValueError unless ``index`` is int32 [T, R] on the device of another tensor."""
    check_memory("index", index)
    if index.dtype != torch.int32:
        raise TypeError(f"index: got dtype {index.dtype}, expected torch.int32")
    if index.device != other.device:
        raise ValueError(f"index: got device {index.device}, expected {other.device} as {name} is on")
    check_shape("index", index, "TR", {})


def check_rows(num_shared: int, num_private: int, index: Tensor, names: str) -> None:
    """Raise ValueError for banks of too many rows, IndexError for none where ``index`` has values."""
    for rows in (num_shared, num_private):
        if isinstance(rows, int) and not 0 <= rows <= MAX_ROWS:  # a traced graph may leave it open
            raise ValueError(f"{names}: got {num_shared} and {num_private} rows, expected 0 to {MAX_ROWS} each")
    if isinstance(num_shared, int) and isinstance(num_private, int) and num_shared + num_private == 0 and index.numel():
        raise IndexError("index: got values, expected none: the banks have no rows")


def check_index(index: Tensor, rows: int) -> None:
    """Raise IndexError unless all values of ``index`` are in [0, rows). It reads them, for which a GPU must be waited for."""
    values = values_of(index, 2)
    if values is not None and values.numel():
        low, high = (int(bound) for bound in values.aminmax())
        if low < 0 or high >= rows:
            raise IndexError(f"index: got {low if low < 0 else high}, expected values in [0, S + P) = [0, {rows})")


def fake(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """An empty result, [T, R, ...]."""
    check(shared, private, index)
    return shared.new_empty(*index.shape, *shared.shape[1:])


def fake_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
    """Empty gradients of shared and private."""
    check_backward(grad, index, num_shared, num_private)
    return grad.new_empty(num_shared, *grad.shape[2:]), grad.new_empty(index.shape[0], num_private, *grad.shape[2:])


def check_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> None:
    """Raise TypeError, ValueError or IndexError unless the backward's arguments fit each other."""
    check_tensor("grad", grad, "floats [T, R, ...]")
    check_tensor("index", index, "int32 [T, R]")
    check_memory("grad", grad)
    check_dtype("grad", grad)
    check_index_tensor(index, "grad", grad)
    if grad.dim() < 2 or grad.shape[:2] != index.shape:
        raise ValueError(f"grad: got shape {list(grad.shape)}, expected [T, R, ...] for index {list(index.shape)}")
    check_rows(num_shared, num_private, index, "num_shared, num_private")


def by_plain_pytorch(shared: Tensor, private: Tensor, index: Tensor, recompute: bool) -> Tensor:
    """The reference's result."""
    check(shared, private, index)
    check_index(index, shared.shape[0] + private.shape[1])
    return plain(shared, private, index)


def register_autograd(namespace: str, tf32_device: str) -> Callable[..., Tensor]:
    """As :func:`.cross_rnn.register_autograd`. Only the index is saved, and nothing is multiplied."""
    operators = getattr(torch.ops, namespace)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        shared, private, index = inputs
        ctx.save_for_backward(index)
        ctx.rows = shared.shape[0], private.shape[1]

    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        (index,) = ctx.saved_tensors
        d_shared, d_private = backward(grad, index, *ctx.rows)
        return d_shared, d_private, None

    def save_index(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    def gradient_of_gradients(ctx: Any, d_shared: Tensor, d_private: Tensor) -> Sequence[Tensor | None]:
        (index,) = ctx.saved_tensors
        return gather(d_shared, d_private, index), None, None, None

    def compute(shared: Tensor, private: Tensor, index: Tensor, recompute: bool) -> Tensor:
        result: Tensor = gather(shared, private, index)  # which checks all but the values; C++ on a CPU checks these too
        if not (index.is_cpu and namespace == "dcrnn_fast") and not torch.compiler.is_compiling():
            check_index(index, shared.shape[0] + private.shape[1])
        return result

    gather = register_derivative(operators.param_gather.default, save, gradients)
    backward = register_derivative(operators.param_gather_backward.default, save_index, gradient_of_gradients)
    return compute
