"""The operator ``low_rank_cross_rnn``: as :mod:`.cross_rnn`, with a projection to r columns between what a unit reads and its weights.

Its activations are z and y, which are few, and are enough to compute the states again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ..reference.operators import cross_rnn as plain
from ..sharing import GATES
from ..support.checks import check_alike, check_tensor
from .autograd import needs_gradient
from .checks import check_banks
from .cross_rnn import (
    Keep,
    Needs,
    allows_tf32,
    check_inputs,
    check_kept,
    check_places,
    check_weights,
    empty_gradients,
    out_shape,
    register_cell,
    with_arguments,
)

PROJECTION = ("shared_projection", "private_projection", "projection_index")
"""The arguments that ``cross_rnn`` does not have."""
INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context", "shared_projection", "private_projection")
"""The differentiable arguments, in the order of the gradients."""
SIZES = ("dim", "context", "gates", "tasks", "steps", "tied", "rank", "return_states", "recompute")
"""The sizes on which its time depends, but the batch size: D, C, G, T, L, the rank and three options, as 0 or 1."""


class Arguments(NamedTuple):
    """What the operator takes, in the order of its schema; :func:`dcrnn_fast.functional.cross_rnn` explains all but the last two."""

    x0: Tensor
    shared_weight: Tensor
    shared_bias: Tensor
    private_weight: Tensor
    private_bias: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name
    shared_projection: Tensor
    private_projection: Tensor
    projection_index: Tensor
    steps: int
    cell: str = "gated"
    context: Tensor | None = None
    return_states: bool = False
    allow_tf32: bool = False
    """Whether a GPU may round float32 operands of products to tf32."""
    keep: bool = False
    """Whether the forward returns z and y for the backward."""

    def operator(self) -> str:
        """Its name."""
        return "low_rank_cross_rnn"

    def rank(self) -> int:
        """The rank r."""
        return self.projection_index.shape[1] // (self.index.shape[1] // self.x0.shape[1])

    def indices(self) -> list[tuple[Tensor, int, str, str]]:
        """As :func:`.checks.check_index` takes them."""
        return [
            (self.index, self.shared_weight.shape[0] + self.private_weight.shape[1], "index", "S + P"),
            (self.projection_index, self.shared_projection.shape[0] + self.private_projection.shape[1], "projection_index", "M + N"),
        ]

    def check_shapes(self) -> None:
        """Raise TypeError, ValueError or IndexError unless the arguments fit each other, but for the values of an index."""
        columns = check_inputs(self)
        check_places(self)
        _check_projection(self, columns)
        check_weights(self, self.rank())

    def sizes(self, recompute: bool) -> tuple[int, ...]:
        """In the order of :data:`SIZES`."""
        columns, tied = 0 if self.context is None else self.context.shape[2], self.index.shape[1] == self.x0.shape[1]
        cell = self.x0.shape[1], columns, GATES[self.cell], self.index.shape[0], self.steps
        return *cell, 1 if tied else 0, self.rank(), int(self.return_states), int(recompute)

    def by_plain_pytorch(self, recompute: bool) -> Tensor:
        """The result of the reference, which keeps what autograd keeps."""
        return plain(**dict(zip(self._fields[:-2], self[:-2], strict=True)))  # type: ignore[arg-type]


def _check_projection(a: Arguments, columns: int) -> None:
    """Raise TypeError or ValueError unless all three tensors are given and fit x0 and ``index``."""
    for name in PROJECTION:
        if getattr(a, name) is None:
            raise ValueError(f"{name}: got None, expected a tensor: a projection has all three of {', '.join(PROJECTION)}")
    shared, private, places = a.shared_projection, a.private_projection, a.projection_index
    for name in PROJECTION[:2]:
        check_tensor(name, getattr(a, name), "floats")
    check_alike("x0", a.x0, {"shared_projection": shared, "private_projection": private})
    check_banks("shared_projection", shared, "private_projection", private, places, index_name="projection_index")
    tasks, weight_steps = a.index.shape[0], a.index.shape[1] // a.x0.shape[1]
    if places.shape[0] != tasks:
        raise ValueError(f"projection_index: got {places.shape[0]} tasks, expected {tasks} as index {list(a.index.shape)} has")
    if places.shape[1] < weight_steps or places.shape[1] % weight_steps:
        raise ValueError(f"projection_index: got {places.shape[1]} rows a task, expected {weight_steps} * r for a rank r")
    if shared.dim() != 3 or tuple(shared.shape[1:]) != (GATES[a.cell], columns):
        raise ValueError(f"shared_projection: got shape {list(shared.shape)}, expected [M, {GATES[a.cell]}, {columns}]")


def _activations_shape(a: Arguments) -> list[int]:
    return [a.index.shape[0], a.steps, a.x0.shape[0], GATES[a.cell], a.rank()]


def check_backward(grad: Tensor, activations: Tensor, needs: int, *arguments: Any) -> Arguments:
    """The forward's arguments. Raise TypeError or ValueError unless they and the backward's fit each other."""
    a = Arguments(*arguments)
    a.check_shapes()
    every = Needs.X0 | Needs.BANKS | Needs.CONTEXT | Needs.PROJECTIONS
    check_kept(a, grad, needs, every, activations=(activations, _activations_shape(a)))
    return a


def shapes(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Empty results: the output, and the activations, [0] where they are not kept."""
    a = Arguments(*arguments)
    a.check_shapes()
    return a.x0.new_empty(out_shape(a)), a.x0.new_empty(_activations_shape(a) if a.keep else 0)


def gradient_shapes(grad: Tensor, activations: Tensor, needs: int, *arguments: Any) -> tuple[Tensor, ...]:
    """Empty gradients of :data:`INPUTS`, [0] for one that is not asked for."""
    a = check_backward(grad, activations, needs, *arguments)
    banks, projections = [(bank, Needs.BANKS) for bank in a[1:5]], [(bank, Needs.PROJECTIONS) for bank in a[6:8]]
    return empty_gradients([(a.x0, Needs.X0), *banks, (a.context, Needs.CONTEXT), *projections], needs)


DECLARATIONS = {
    "low_rank_cross_rnn": with_arguments(shapes, Arguments, 2),
    "low_rank_cross_rnn_backward": with_arguments(gradient_shapes, Arguments, len(INPUTS), grad=Tensor, activations=Tensor, needs=int),
}
"""By the operator's name, the function that computes the shapes for tracing; its signature is the schema."""


def register_autograd(namespace: str, keeps: Keep, tf32_device: str) -> Callable[[Arguments, bool], Tensor]:
    """As :func:`.cross_rnn.register_autograd`, but every namespace keeps z and y; with ``recompute``, nothing is kept."""
    forward = register_cell(namespace, "low_rank_cross_rnn", Arguments, INPUTS)

    def compute(a: Arguments, recompute: bool) -> Tensor:
        out: Tensor = forward(*a[:-2], allows_tf32(a.x0, tf32_device), not recompute and needs_gradient(a))[0]
        return out

    return compute
