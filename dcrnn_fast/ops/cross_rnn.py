"""The operator ``cross_rnn``: its arguments, what they must satisfy, the shapes of its results, and its derivative.

Its backward is an operator of its own without a derivative: second derivatives are the reference's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from inspect import Parameter, Signature
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from ..reference.operators import cross_rnn as plain
from ..sharing import GATES
from ..support.checks import MAX_STEPS, check_alike, check_choice, check_count, check_memory, check_tensor
from ..support.tracing import constant_in_graphs
from .autograd import needs_gradient, no_second_derivative, register_derivative, save_nothing
from .checks import check_banks

if TYPE_CHECKING:
    from .low_rank_cross_rnn import Arguments as LowRankArguments

INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context")
"""The differentiable arguments, in the order of the gradients."""
SIZES = ("dim", "context", "gates", "tasks", "steps", "tied", "return_states", "recompute")
"""The sizes on which its time depends, but the batch size: D, C, G, T, L and three options, as 0 or 1."""


class Keep(IntFlag):
    """What a forward keeps for the backward: nothing, the activations a and g, the states between the steps, or both."""

    NOTHING = 0
    ACTIVATIONS = 1
    STATES = 2
    BOTH = 3


class Needs(IntFlag):
    """Which gradients a backward computes. A backend computes those of the four banks, and of the two projections, together, if any of
    them is needed."""

    X0 = 1
    SHARED_WEIGHT = 2
    SHARED_BIAS = 4
    PRIVATE_WEIGHT = 8
    PRIVATE_BIAS = 16
    CONTEXT = 32
    SHARED_PROJECTION = 64
    PRIVATE_PROJECTION = 128
    BANKS = 30
    PROJECTIONS = 192


class Arguments(NamedTuple):
    """What the operator takes, in the order of its schema; :func:`dcrnn_fast.functional.cross_rnn` explains all but the last two.

    It has no properties, which the compiler of PyTorch 2.10 cannot read of a named tuple.
    """

    x0: Tensor
    shared_weight: Tensor
    shared_bias: Tensor
    private_weight: Tensor
    private_bias: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name
    steps: int
    cell: str = "gated"
    context: Tensor | None = None
    return_states: bool = False
    allow_tf32: bool = False
    """Whether a GPU may round float32 operands of products to tf32."""
    keep: int = 0
    """What the forward returns for the backward, see :class:`Keep`."""

    def operator(self) -> str:
        """Its name."""
        return "cross_rnn"

    def indices(self) -> list[tuple[Tensor, int, str, str]]:
        """As :func:`.checks.check_index` takes them."""
        return [(self.index, self.shared_weight.shape[0] + self.private_weight.shape[1], "index", "S + P")]

    def check_shapes(self) -> None:
        """Raise TypeError, ValueError or IndexError unless the arguments fit each other, but for the values of an index."""
        columns = check_inputs(self)
        check_weights(self, columns)
        check_places(self)

    def sizes(self, recompute: bool) -> tuple[int, ...]:
        """In the order of :data:`SIZES`."""
        columns, tied = 0 if self.context is None else self.context.shape[2], self.index.shape[1] == self.x0.shape[1]
        cell = self.x0.shape[1], columns, GATES[self.cell], self.index.shape[0], self.steps
        return *cell, 1 if tied else 0, int(self.return_states), int(recompute)

    def by_plain_pytorch(self, recompute: bool) -> Tensor:
        """The result of the reference, which keeps what autograd keeps."""
        return plain(**dict(zip(self._fields[:-2], self[:-2], strict=True)))  # type: ignore[arg-type]


def check_inputs(a: Arguments | LowRankArguments) -> int:
    """The columns C + D that a cell reads. Raise TypeError or ValueError unless all but the shapes of weights and index fit each other."""
    check_choice("cell", a.cell, tuple(GATES))
    if isinstance(a.steps, int):  # a traced graph may leave it open
        check_count("steps", a.steps, maximum=MAX_STEPS)
    check_tensor("x0", a.x0, "floats [B, D]")
    check_memory("x0", a.x0)
    if a.context is not None:
        check_tensor("context", a.context, "floats [steps, B, C]")
        check_memory("context", a.context)
    if a.x0.dim() != 2 or a.x0.shape[1] == 0:
        raise ValueError(f"x0: got shape {list(a.x0.shape)}, expected [B, D] with D >= 1")
    batch, dim = a.x0.shape
    others = {name: getattr(a, name) for name in INPUTS[1:] if name != "context" or a.context is not None}
    for name, tensor in others.items():
        check_tensor(name, tensor, "floats")
    check_alike("x0", a.x0, others)
    check_banks("shared_weight", a.shared_weight, "private_weight", a.private_weight, a.index)
    check_banks("shared_bias", a.shared_bias, "private_bias", a.private_bias, a.index)
    if a.context is None:
        return dim
    if a.context.dim() != 3 or tuple(a.context.shape[:2]) != (a.steps, batch):
        raise ValueError(f"context: got shape {list(a.context.shape)}, expected [{a.steps}, {batch}, C], one state before each step")
    return dim + a.context.shape[2]


def check_weights(a: Arguments | LowRankArguments, columns: int) -> None:
    """Raise ValueError unless the weights have so many columns, and the biases fit them."""
    expected = GATES[a.cell], columns
    if tuple(a.shared_weight.shape[1:]) != expected:
        raise ValueError(f"shared_weight: got shape {list(a.shared_weight.shape)}, expected [S, {expected[0]}, {columns}]")
    for kind, dims in (("shared", 2), ("private", 3)):
        weight, bias = getattr(a, f"{kind}_weight"), getattr(a, f"{kind}_bias")
        if tuple(bias.shape) != tuple(weight.shape[:dims]):
            raise ValueError(f"{kind}_bias: got shape {list(bias.shape)}, expected {list(weight.shape[:dims])}")


def check_places(a: Arguments | LowRankArguments) -> None:
    """Raise ValueError unless the index has a place for each unit, or for each unit at each step."""
    (_, dim), (_, rows) = a.x0.shape, a.index.shape
    if rows != dim and rows != a.steps * dim:  # symbolic sizes of a compiled graph do not support "in"
        raise ValueError(
            f"index: got {rows} rows a task, expected D = {dim} (weights tied over steps) or steps * D = {a.steps * dim} (untied)"
        )


def check_kept(a: Arguments | LowRankArguments, grad: Tensor, needs: int, most_needs: int, **kept: tuple[Tensor, list[int]]) -> None:
    """Raise TypeError or ValueError unless a backward's gradient and ``needs`` are right, and what was kept has its shape, or is [0]."""
    for name, tensor in (("grad", grad), *[(name, tensor) for name, (tensor, _) in kept.items()]):
        check_tensor(name, tensor, f"floats, an output of {a.operator()}")
        check_memory(name, tensor)
    check_alike("x0", a.x0, {"grad": grad, **{name: tensor for name, (tensor, _) in kept.items()}})
    expected = out_shape(a)
    if list(grad.shape) != expected:
        raise ValueError(f"grad: got shape {list(grad.shape)}, expected {expected}, the shape of {a.operator()}'s first output")
    for name, (tensor, shape) in kept.items():
        if list(tensor.shape) not in ([0], shape):
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {shape}, or [0] where it was not kept")
    if not 0 <= needs <= most_needs:
        raise ValueError(f"needs: got {needs}, expected a sum of the bits of Needs, 0 to {most_needs}")
    if needs & Needs.CONTEXT and a.context is None:
        raise ValueError("needs: asks for the gradient of context, which is absent")


def out_shape(a: Arguments | LowRankArguments) -> list[int]:
    """The last state [T, B, D], or all states [T, L + 1, B, D]."""
    states = [a.steps + 1] if a.return_states else []
    return [a.index.shape[0], *states, *a.x0.shape]


def _states_shape(a: Arguments) -> list[int]:
    return [a.index.shape[0], a.steps - 1, *a.x0.shape]


def _activations_shape(a: Arguments) -> list[int]:
    batch, dim = a.x0.shape
    return [a.index.shape[0], a.steps, batch, GATES[a.cell], dim]


def check_backward(grad: Tensor, states: Tensor, activations: Tensor, needs: int, *arguments: Any) -> Arguments:
    """The forward's arguments. Raise TypeError or ValueError unless they and the backward's fit each other."""
    a = Arguments(*arguments)
    a.check_shapes()
    kept = {"states": (states, _states_shape(a)), "activations": (activations, _activations_shape(a))}
    check_kept(a, grad, needs, Needs.X0 | Needs.BANKS | Needs.CONTEXT, **kept)
    return a


def shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Empty results: the output; the states 1 to L - 1 unless the output holds them, and the activations, [0] where they are not kept."""
    a = Arguments(*arguments)
    a.check_shapes()
    empty = a.x0.new_empty
    states = empty(_states_shape(a)) if a.keep & Keep.STATES and not a.return_states else empty(0)
    return empty(out_shape(a)), states, empty(_activations_shape(a)) if a.keep & Keep.ACTIVATIONS else empty(0)


def gradient_shapes(grad: Tensor, states: Tensor, activations: Tensor, needs: int, *arguments: Any) -> tuple[Tensor, ...]:
    """Empty gradients of :data:`INPUTS`, [0] for one that is not asked for."""
    a = check_backward(grad, states, activations, needs, *arguments)
    return empty_gradients([(a.x0, Needs.X0), *[(bank, Needs.BANKS) for bank in a[1:5]], (a.context, Needs.CONTEXT)], needs)


def empty_gradients(inputs: list[tuple[Any, int]], needs: int) -> tuple[Tensor, ...]:
    """A tensor in the shape of each input of which ``needs`` has a bit; [0] for the others."""
    like = inputs[0][0].new_empty
    return tuple([like(tensor.shape) if needs & bits and tensor is not None else like(0) for tensor, bits in inputs])


def with_arguments(function: Callable[..., Any], arguments: Any, results: int, **first: type) -> Callable[..., Any]:
    """The function of ``*arguments``, with a signature that PyTorch reads: the fields of a ``NamedTuple``, and so many tensors as results.

    With ``first``, the arguments of a backward by name: they come before those of the forward, of which the last is left out, as it
    says what is kept. None of them has a default.
    """
    kinds, defaults = get_type_hints(arguments), {} if first else arguments._field_defaults
    fields = arguments._fields[:-1] if first else arguments._fields
    kind = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter(name, kind, annotation=of_type) for name, of_type in first.items()]
    parameters += [Parameter(name, kind, annotation=kinds[name], default=defaults.get(name, Parameter.empty)) for name in fields]
    function.__signature__ = Signature(parameters, return_annotation=tuple[(Tensor,) * results])  # type: ignore[attr-defined, misc]
    return function


DECLARATIONS = {
    "cross_rnn": with_arguments(shapes, Arguments, 3),
    "cross_rnn_backward": with_arguments(
        gradient_shapes, Arguments, len(INPUTS), grad=Tensor, states=Tensor, activations=Tensor, needs=int
    ),
}
"""By the operator's name, the function that computes the shapes for tracing; its signature is the schema."""


@constant_in_graphs
def tf32() -> bool:
    """Whether PyTorch is set to compute float32 products in tf32; a compiled graph keeps the setting that it was compiled under."""
    setting = torch.backends.cuda.matmul.fp32_precision
    return (torch.backends.fp32_precision if setting == "none" else setting) == "tf32"  # type: ignore[attr-defined]


def allows_tf32(x0: Tensor, device: str) -> bool:
    """Whether a call's products may be computed in tf32, on the type of device on which PyTorch's setting counts."""
    return x0.dtype == torch.float32 and x0.device.type == device and tf32()


def register_cell(namespace: str, name: str, arguments: Any, differentiable: tuple[str, ...]) -> Callable[..., Any]:
    """Register the derivatives of a cell's operator and of its backward, and return the function that calls the operator.

    Args:
        namespace: as in ``torch.ops.<namespace>``.
        name: the operator's.
        arguments: what it takes, a ``NamedTuple``.
        differentiable: its differentiable arguments, in the order of the gradients.
    """
    fields = arguments._fields
    bits = [1 << differentiable.index(field) if field in differentiable else 0 for field in fields]
    steps, context = fields.index("steps"), fields.index("context")  # all before the steps, and the context, are tensors

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        out, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        a = arguments(*inputs)
        ctx.states, ctx.constants = None, (inputs[steps:context], inputs[context + 1 : -1])
        if a.return_states and a.keep & Keep.STATES:
            ctx.states, kept[0] = slice(1, a.steps), out
        ctx.save_for_backward(*kept, *inputs[:steps], inputs[context])

    def gradients(ctx: Any, grad: Tensor | None, *_: None) -> dict[str, Tensor]:
        if grad is None:
            return {}
        saved, (before, after) = ctx.saved_tensors, ctx.constants
        kept, tensors = saved[: -steps - 1], saved[-steps - 1 : -1]
        if ctx.states is not None:
            kept = kept[0][:, ctx.states], *kept[1:]
        needs = sum(compress(bits, ctx.needs_input_grad))
        return dict(zip(differentiable, backward(grad, *kept, needs, *tensors, *before, saved[-1], *after), strict=True))

    operators = getattr(torch.ops, namespace)
    backward = register_derivative(getattr(operators, f"{name}_backward").default, save_nothing, no_second_derivative)
    return register_derivative(getattr(operators, name).default, save, gradients)


def register_autograd(namespace: str, keeps: Keep, tf32_device: str) -> Callable[[Arguments, bool], Tensor]:
    """Register the derivatives of a namespace's operators, and return the function that computes by them.

    Args:
        namespace: as in ``torch.ops.<namespace>``.
        keeps: what the namespace keeps for a backward. With ``recompute`` it keeps no activations, and the backward computes them again.
        tf32_device: the type of device on which PyTorch's tf32 setting counts.
    """
    forward = register_cell(namespace, "cross_rnn", Arguments, INPUTS)

    def compute(a: Arguments, recompute: bool) -> Tensor:
        keep = (keeps & ~Keep.ACTIVATIONS if recompute else keeps) if needs_gradient(a) else Keep.NOTHING
        out: Tensor = forward(*a[:-2], allows_tf32(a.x0, tf32_device), int(keep))[0]  # an enum, which a graph does not leave open
        return out

    return compute
