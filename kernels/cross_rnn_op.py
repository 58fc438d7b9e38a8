"""``cross_rnn`` by the Triton kernels, as operators that PyTorch's compiler sees into."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import wrap_triton

from . import tile_choice
from .cross_rnn_all_steps import cross_rnn_all_steps
from .cross_rnn_backward import cross_rnn_backward_start, cross_rnn_backward_step
from .cross_rnn_backward_context import cross_rnn_backward_context
from .cross_rnn_forward import cross_rnn_step
from .launch import alignment, on_device_of, operator, precision
from .param_gather_op import backward as param_gather_backward
from .weight_gradient import WeightGradient

GATES = {"gated": 2, "cross": 1}
NOTHING, STATES, EVERYTHING = 0, 1, 2
"""What a forward keeps for the backward: nothing, the states, or the states and a, g."""


def cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    *,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    recompute: bool = False,
) -> Tensor:
    """:func:`dcrnn_fast.reference.cross_rnn`, which keeps the states and a, g for the backward, or with ``recompute`` the states alone."""
    tensors = x0, shared_weight, shared_bias, private_weight, private_bias
    with_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, context) if t is not None)
    keep = (STATES if recompute else EVERYTHING) if with_gradient else NOTHING
    return torch.ops.dcrnn_fast.triton_cross_rnn(*tensors, index, context, steps, cell, return_states, keep)[0]


@operator("dcrnn_fast::triton_cross_rnn", mutates_args={})
def forward(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    context: Tensor | None,
    steps: int,
    cell: str,
    return_states: bool,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; the states 1 to L - 1 [T, L - 1, B, D] unless the output holds them; a, g [T, L, B, G, D]. [0] for what is not kept.

    Shapes as :func:`dcrnn_fast.functional.cross_rnn`.
    """
    tasks, rows = index.shape
    (batch, dim), gates = x0.shape, GATES[cell]
    columns = 0 if context is None else context.shape[2]
    out = x0.new_empty(tasks, steps + 1, batch, dim) if return_states else x0.new_empty(tasks, batch, dim)
    slots = steps - 1 if keep else min(2, steps - 1)
    states = x0.new_empty(0) if return_states else x0.new_empty(tasks, slots, batch, dim)
    kept = x0.new_empty(tasks, steps, batch, gates, dim) if keep == EVERYTHING else x0.new_empty(0)
    if return_states:
        out[:, 0] = x0
    if out.numel() == 0:
        return out, states if keep else x0.new_empty(0), kept

    x0, index = x0.contiguous(), index.contiguous()
    banks = [bank.contiguous() for bank in (shared_weight, shared_bias, private_weight, private_bias)]
    context = x0 if context is None else context.contiguous()
    size = batch * dim
    slots, first_slot = (steps + 1, 1) if return_states else (max(slots, 1), 0)
    buffer, stride = (out, slots * size) if return_states else (states, slots * size)
    kind = precision(x0.dtype)
    common = {
        "G": gates, "HAS_CONTEXT": columns > 0, "SAVE": keep == EVERYTHING, "PRECISION": kind,
        "ALIGN": alignment((dim, columns), banks[0], banks[2]), "enable_fp_fusion": False,
    }  # fmt: skip
    sizes = tile_choice.Sizes.of(x0, tasks, gates, columns + dim, steps)
    counts = batch, dim, columns, rows, banks[0].shape[0], banks[2].shape[1]
    step_rows = dim if rows != dim else 0
    with on_device_of(x0):
        if tile_choice.schedule(sizes) == "all_steps":
            config = tile_choice.config("all_steps", sizes)
            wrap_triton(cross_rnn_all_steps)[(triton.cdiv(batch, config.block_b), tasks)](
                x0, buffer, context, out, kept if keep == EVERYTHING else out, *banks, index,
                *counts, steps, step_rows, slots, first_slot, stride, TO_OUT=not return_states, **common, **config.constants(),
            )  # fmt: skip
        else:
            config = tile_choice.config("step", sizes)
            grid = triton.cdiv(batch, config.block_b) * triton.cdiv(dim, config.block_d), tasks
            for step in range(steps):
                read, write = ((first_slot + at) % slots * size for at in (step - 1, step))
                wrap_triton(cross_rnn_step)[grid](
                    x0, buffer, context, out, kept if keep == EVERYTHING else out, *banks, index,
                    *counts, step * step_rows, read, write, stride, step * batch * columns, step * gates * size, steps * gates * size,
                    FIRST=step == 0, LAST=step == steps - 1 and not return_states, STORE=True, **common, **config.constants(),
                )  # fmt: skip
    return out, states if keep and not return_states else x0.new_empty(0), kept


@operator("dcrnn_fast::triton_cross_rnn_backward", mutates_args={})
def backward(
    grad: Tensor,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    context: Tensor | None,
    states: Tensor,
    kept: Tensor,
    steps: int,
    cell: str,
    return_states: bool,
    needs: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x0, the four banks and the context: bit i of ``needs`` asks for the i-th (the banks come together), else [0].

    ``states`` [T, L - 1, B, D] are those before every step but the first. ``kept`` is a, g of every step, or [0]: they are then computed
    again, and da, dq of two steps are all that is held at a time.
    """
    tasks, rows = index.shape
    (batch, dim), gates = x0.shape, GATES[cell]
    columns = 0 if context is None else context.shape[2]
    want_x0, want_banks, want_context = needs & 1, needs & 0b11110, needs & 32 and context is not None
    bank_tensors = shared_weight, shared_bias, private_weight, private_bias
    nothing = x0.new_empty(0)
    if batch == 0 or tasks == 0:
        zeros = [torch.zeros_like(bank) if want_banks else x0.new_empty(0) for bank in bank_tensors]
        dcontext = torch.zeros_like(context) if want_context and context is not None else x0.new_empty(0)
        return torch.zeros_like(x0) if want_x0 else nothing, zeros[0], zeros[1], zeros[2], zeros[3], dcontext
    grad, x0, index = grad.contiguous(), x0.contiguous(), index.contiguous()
    banks = [bank.contiguous() for bank in bank_tensors]
    upstream = x0 if context is None else context.contiguous()
    recompute = kept.numel() == 0
    size, plane = batch * dim, gates * batch * dim
    slots = min(2, steps) if recompute else steps
    wide = torch.float64 if x0.dtype == torch.float64 else torch.float32
    sizes = tile_choice.Sizes.of(x0, tasks, gates, columns + dim, steps)
    config = tile_choice.config("backward", sizes)
    row_tiles = triton.cdiv(batch, config.block_b)
    dx0, d = (x0.new_empty(tasks, batch, dim, dtype=wide) for _ in range(2))
    gradients = x0.new_empty(tasks, slots, batch, gates, dim)
    sums = x0.new_empty(tasks, steps, row_tiles, gates, dim, dtype=wide)
    scratch = x0.new_empty(tasks, 1, batch, gates, dim) if recompute else kept
    dcontext = torch.empty_like(upstream) if want_context else x0.new_empty(0)

    counts = batch, dim, columns, rows, banks[0].shape[0], banks[2].shape[1]
    step_rows = dim if rows != dim else 0
    pinned = {"PRECISION": precision(x0.dtype), "ALIGN": alignment((dim, columns), banks[0], banks[2]), "enable_fp_fusion": False}
    gates_stride = plane if recompute else steps * plane
    given_stride = (steps + 1) * size if return_states else size
    weights = WeightGradient(gradients, states, x0, context, steps, tied=rows == dim)

    def gates_of(step: int) -> int:
        """Where a, g of a step begin; computed now where they were not kept."""
        if not recompute:
            return step * plane
        forward = tile_choice.config("step", sizes)
        wrap_triton(cross_rnn_step)[triton.cdiv(batch, forward.block_b) * triton.cdiv(dim, forward.block_d), tasks](
            x0, states, upstream, d, scratch, *banks, index,
            *counts, step * step_rows, (step - 1) * size, 0, states.stride(0) if step else 0, step * batch * columns, 0, gates_stride,
            G=gates, HAS_CONTEXT=columns > 0, FIRST=step == 0, LAST=False, SAVE=True, STORE=False, **pinned, **forward.constants(),
        )  # fmt: skip
        return 0

    with on_device_of(x0):
        last = steps - 1
        wrap_triton(cross_rnn_backward_start)[row_tiles * triton.cdiv(dim, 64), tasks](
            x0, grad, scratch, dx0, gradients, sums,
            batch, dim, steps * size if return_states else 0, given_stride, gates_of(last), gates_stride, last % slots * plane,
            slots * plane, last * row_tiles * gates * dim, steps * row_tiles * gates * dim,
            G=gates, ALIGN=pinned["ALIGN"], BLOCK_B=config.block_b, BLOCK_D=64, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip
        for step in reversed(range(steps)):
            if step or want_x0:
                wrap_triton(cross_rnn_backward_step)[row_tiles * triton.cdiv(dim, config.block_d), tasks](
                    x0, grad, d, scratch, dx0, gradients, sums, banks[0], banks[2], index,
                    *counts, step * step_rows, steps * size if return_states else 0, given_stride, step * size,
                    gates_of(step - 1) if step else 0, gates_stride, step % slots * plane, (step - 1) % slots * plane, slots * plane,
                    (step - 1) * row_tiles * gates * dim, steps * row_tiles * gates * dim,
                    G=gates, FIRST=step == 0, LAST=step == last, STATES=return_states, **pinned, **config.constants(),
                )  # fmt: skip
            if want_context and (recompute or step == 0):
                tile = tile_choice.config("context", sizes)
                launched = 1 if recompute else steps
                wrap_triton(cross_rnn_backward_context)[
                    triton.cdiv(batch, tile.block_b) * triton.cdiv(columns, tile.block_d), launched
                ](
                    dcontext, gradients, banks[0], banks[2], index,
                    batch, dim, columns, tasks, rows, counts[4], counts[5], step * step_rows, step_rows,
                    step * batch * columns, step % slots * plane, slots * plane, plane, G=gates, **pinned, **tile.constants(),
                )  # fmt: skip
            if want_banks and recompute:
                weights.add(step, step + 1, step % slots)
    if want_banks and not recompute:
        weights.add_all()
    dx = dx0.sum(0).to(x0.dtype) if want_x0 else nothing
    if not want_banks:
        return dx, x0.new_empty(0), x0.new_empty(0), x0.new_empty(0), x0.new_empty(0), dcontext
    dweight = weights.rows()
    dbias = (sums.sum((1, 2)).unsqueeze(1) if rows == dim else sums.sum(2)).transpose(2, 3).flatten(1, 2)
    shared, private = param_gather_backward(dweight, index, counts[4], counts[5], x0.dtype)
    shared_b, private_b = param_gather_backward(dbias, index, counts[4], counts[5], x0.dtype)
    return dx, shared, shared_b, private, private_b, dcontext


@forward.register_fake
def _(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    context: Tensor | None,
    steps: int,
    cell: str,
    return_states: bool,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    tasks, (batch, dim) = index.shape[0], x0.shape
    out = x0.new_empty(tasks, steps + 1, batch, dim) if return_states else x0.new_empty(tasks, batch, dim)
    states = x0.new_empty(tasks, steps - 1, batch, dim) if keep and not return_states else x0.new_empty(0)
    return out, states, x0.new_empty(tasks, steps, batch, GATES[cell], dim) if keep == EVERYTHING else x0.new_empty(0)


@backward.register_fake
def _(
    grad: Tensor,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    context: Tensor | None,
    states: Tensor,
    kept: Tensor,
    steps: int,
    cell: str,
    return_states: bool,
    needs: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def gradient(tensor: Tensor | None, wanted: int) -> Tensor:
        return x0.new_empty(tensor.shape) if wanted and tensor is not None else x0.new_empty(0)

    banks = needs & 0b11110
    return (
        gradient(x0, needs & 1),
        gradient(shared_weight, banks),
        gradient(shared_bias, banks),
        gradient(private_weight, banks),
        gradient(private_bias, banks),
        gradient(context, needs & 32),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, context, steps, cell, return_states, _ = inputs
    out, states, kept = output
    ctx.mark_non_differentiable(states, kept)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, context, out if return_states else states, kept)
    ctx.constants = steps, cell, return_states


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 11
    *tensors, index, context, states, kept = ctx.saved_tensors
    steps, cell, return_states = ctx.constants
    wanted = [*ctx.needs_input_grad[:5], ctx.needs_input_grad[6]]
    needs = sum(1 << i for i, need in enumerate(wanted) if need)
    states = states[:, 1:steps] if return_states else states
    found = torch.ops.dcrnn_fast.triton_cross_rnn_backward(grad, *tensors, index, context, states, kept, steps, cell, return_states, needs)
    gradients = [gradient if need else None for gradient, need in zip(found, wanted, strict=True)]
    return *gradients[:5], None, gradients[5], None, None, None, None


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    from dcrnn_fast.errors import BackendUnavailable

    raise BackendUnavailable(
        "backend='triton' has no second derivatives (the gradient of a gradient was asked for). Use backend='reference', which is "
        "differentiable any number of times"
    )


forward.register_autograd(_backward, setup_context=_keep)
backward.register_autograd(_no_second_derivative)
