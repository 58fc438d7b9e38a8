"""The operator ``param_gather``: its arguments, what they must satisfy, the shapes of its results, and its derivative.

Its backward is linear, and the derivative of the backward is ``param_gather`` again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reference.operators import param_gather as plain
from ..support.checks import FLOATING, check_memory, check_tensor
from .autograd import register_derivative
from .checks import check_banks, check_rows

INPUTS = ("shared", "private")
"""The differentiable arguments."""
SIZES = ("tasks", "rows", "shared", "private", "values")
"""The sizes on which its time depends: T, R, S, P and the values of a row."""


class Arguments(NamedTuple):
    """What the operator takes, in the order of its schema: [S, ...], [T, P, ...] and int32 [T, R]."""

    shared: Tensor
    private: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name

    def operator(self) -> str:
        """Its name."""
        return "param_gather"

    def indices(self) -> list[tuple[Tensor, int, str, str]]:
        """As :func:`.checks.check_index` takes them."""
        return [(self.index, self.shared.shape[0] + self.private.shape[1], "index", "S + P")]

    def check_shapes(self) -> None:
        """Raise TypeError, ValueError or IndexError unless the arguments fit each other, but for the values of an index."""
        check_banks("shared", self.shared, "private", self.private, self.index)

    def sizes(self, recompute: bool) -> tuple[int, ...]:
        """In the order of :data:`SIZES`."""
        return *self.index.shape, self.shared.shape[0], self.private.shape[1], math.prod(self.shared.shape[1:])

    def by_plain_pytorch(self, recompute: bool) -> Tensor:
        """The result of the reference."""
        return plain(*self)


def check_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> None:
    """Raise TypeError or ValueError unless the backward's arguments fit each other: callers of an operator may have checked nothing."""
    check_tensor("grad", grad, "floats [T, R, ...]")
    check_tensor("index", index, "int32 [T, R]")
    for name, tensor in (("grad", grad), ("index", index)):
        check_memory(name, tensor)
    if index.dtype != torch.int32:
        raise TypeError(f"index: got dtype {index.dtype}, expected torch.int32")
    if grad.dtype not in FLOATING:
        raise TypeError(f"grad: got dtype {grad.dtype}, expected a floating dtype of at least 16 bits")
    if index.dim() != 2 or grad.dim() < 2 or grad.shape[:2] != index.shape:
        raise ValueError(f"grad: got shape {list(grad.shape)}, expected [T, R, ...] beside index {list(index.shape)}")
    if index.device != grad.device:
        raise ValueError(f"index: got device {index.device}, expected {grad.device} as grad is on")
    check_rows(num_shared, num_private, index, "num_shared, num_private")


def shapes(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """An empty result, [T, R, ...]."""
    check_banks("shared", shared, "private", private, index)
    return shared.new_empty(*index.shape, *shared.shape[1:])


def gradient_shapes(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
    """Empty gradients of shared and private."""
    check_backward(grad, index, num_shared, num_private)
    trailing = grad.shape[2:]
    return grad.new_empty(num_shared, *trailing), grad.new_empty(index.shape[0], num_private, *trailing)


DECLARATIONS: dict[str, Callable[..., Any]] = {"param_gather": shapes, "param_gather_backward": gradient_shapes}
"""By the operator's name, the function that computes the shapes for tracing; its signature is the schema."""


def register_autograd(namespace: str, keeps: object, tf32_device: str) -> Callable[[Arguments, bool], Tensor]:
    """As :func:`.cross_rnn.register_autograd`. Nothing is kept and nothing multiplied, so the last two arguments have no effect."""
    operators = getattr(torch.ops, namespace)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        shared, private, index = inputs
        ctx.save_for_backward(index)
        ctx.rows = shared.shape[0], private.shape[1]

    def gradients(ctx: Any, grad: Tensor) -> dict[str, Tensor]:
        (index,) = ctx.saved_tensors
        return dict(zip(INPUTS, gather_backward(grad, index, *ctx.rows), strict=True))

    def save_index(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    def gradient_of_gradients(ctx: Any, shared: Tensor, private: Tensor) -> dict[str, Tensor]:
        (index,) = ctx.saved_tensors
        return {"grad": gather(shared, private, index)}

    def compute(arguments: Arguments, recompute: bool) -> Tensor:
        result: Tensor = gather(*arguments)
        return result

    gather = register_derivative(operators.param_gather.default, save, gradients)
    gather_backward = register_derivative(operators.param_gather_backward.default, save_index, gradient_of_gradients)
    return compute
