"""The backward of cross_rnn: da and dq of every step from the last to the first, then the gradients of the inputs and of the weights.

Letters as in cross_rnn; d = dL/dh' of a step. The backward of a step has two parts::

    gate part        da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
    product part     dh = d + W^T da + V^T dq

One launch computes the product part of a step, and then the gate part of the step before it, which uses dh while it is in registers. dh is
that step's d. da and dq of a unit are neighbours, [B, D, G], as rows of W and V are in the weights [D, G, K]: so one product over G * D
gives both terms. A product whose result is added later is written as ``fma`` with 0, so that the bits do not depend on what the compiler
fuses. What all tasks read, x0 and the context, has gradients that are summed over the tasks in their order: a program owns a tile of the
result, so there are no atomics, and the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common
from .common import ITEMSIZE, Tile, Tiles, divide_up, dot, inside, parts, product_operand, store
from .cross_rnn import Sizes, cross_rnn, together

GRAD_X0, GRAD_WEIGHTS, GRAD_CONTEXT, GRAD_PROJECTIONS = 1, 30, 32, 192
"""The bits of ``grad_mask``."""


def _shared_bytes(tile: Tile, kind: str, gates: int, rank: int) -> int:
    return tile.stages * (tile.rows + tile.columns) * tile.products * ITEMSIZE[kind] + 2048


_LARGE = [(128, 256, 64, 8, 3), (128, 128, 64, 8, 4), (128, 128, 64, 8, 3)]
_HALF = [*_LARGE, (64, 128, 64, 4, 3), (64, 64, 64, 4, 4), (32, 64, 64, 4, 4)]
TILES = Tiles(
    "cross_rnn_backward",
    {
        "bfloat16": {0: _HALF},
        "float16": {0: _HALF},
        "tf32": {0: [(128, 128, 32, 8, 3), (64, 128, 32, 4, 3), (64, 64, 32, 4, 4), (32, 64, 32, 4, 4)]},
        "float32": {0: [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)]},
        "float64": {0: [(32, 32, 16, 4, 3)]},
    },
    _shared_bytes,
)
"""Of a step. The rows of a tile decide how bias gradients are added up."""
_HALF_INPUTS = [*_LARGE, (64, 64, 64, 8, 3), (32, 64, 64, 4, 4)]
INPUT_TILES = Tiles(
    "cross_rnn_backward",
    {
        "bfloat16": {0: _HALF_INPUTS},
        "float16": {0: _HALF_INPUTS},
        "tf32": {0: [(64, 64, 32, 8, 3), (32, 64, 32, 8, 3)]},
        "float32": {0: [(64, 64, 16, 8, 3)]},
        "float64": {0: [(32, 32, 16, 8, 3)]},
    },
    _shared_bytes,
)
"""Of the gradients of x0 and of the context, whose loop over tasks needs more registers."""


@triton.jit
def gate_gradient(dg, x, a, g):
    """dq, the gradient of the gate's argument; ``dg`` is d * g."""
    return tl.fma(dg * x * a, 1.0 - g, 0.0)


@triton.jit
def add_gradient_product(
    acc, gradients, weight, row, n, columns, first_column, terms,
    D: tl.constexpr, K: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``acc`` plus W^T da + V^T dq of a task, where the pointers begin, for the columns ``first_column + n`` of its weights [D, G, K].

    The result has ``columns`` columns; ``terms`` is G * D, or 0 to add nothing. For tf32 the weights come transposed, [K, D, G]: its tensor
    cores read both operands along the sum.
    """
    left = gradients + row * (G * D)
    within = (n < columns)[None, :]
    if PRECISION == "tf32":
        right = weight + (first_column + n).to(tl.int64)[None, :] * (G * D) + tl.arange(0, BLOCK_K)[:, None]
    else:
        right = weight + first_column + tl.arange(0, BLOCK_K).to(tl.int64)[:, None] * K + n[None, :]
    for start in range(0, terms, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        u = tl.load(left[:, None] + k[None, :], mask=(k < G * D)[None, :], other=0.0)
        w = tl.load(right, mask=(k < G * D)[:, None] & within, other=0.0)
        acc = dot(u, w, acc, PRECISION)
        if PRECISION == "tf32":
            right += BLOCK_K
        else:
            right += BLOCK_K * K
    return acc


@triton.jit
def gate_part(
    acc, x0, grad, d, activations, gradients, bias_sums, b, unit, B, later, D: tl.constexpr, G: tl.constexpr, STATES: tl.constexpr
):
    """d of a step, from the product part of the step after it if ``later`` steps are not none; then da and dq, and their column sums."""
    n = unit + tl.arange(0, acc.shape[1])
    stored = inside(b, B, n, D)
    at = b.to(tl.int64)[:, None] * D + n[None, :]
    saved = b.to(tl.int64)[:, None] * (G * D) + n[None, :]
    acc += tl.load(d + tl.cast(B, tl.int64) * D + at, mask=inside(b, tl.where(later > 0, B, 0), n, D), other=0.0).to(acc.dtype)
    given = B if STATES else tl.where(later > 0, 0, B)
    acc += tl.load(grad + at, mask=inside(b, given, n, D), other=0.0).to(acc.dtype)
    store(d + at, acc, stored)
    a = tl.load(activations + saved, mask=stored, other=0.0).to(acc.dtype)
    x = tl.load(x0 + at, mask=stored, other=0.0).to(acc.dtype)
    if G == 2:
        g = tl.load(activations + saved + D, mask=stored, other=0.0).to(acc.dtype)
        dg = acc * g
        da, dq = tl.fma(dg, x, 0.0), gate_gradient(dg, x, a, g)
        m = unit * 2 + tl.arange(0, 2 * acc.shape[1])
        both = b.to(tl.int64)[:, None] * (2 * D) + m[None, :]
        store(gradients + both, tl.interleave(da, dq), inside(b, B, m, 2 * D))
        store(bias_sums + m, tl.interleave(tl.sum(da, axis=0), tl.sum(dq, axis=0)), m < 2 * D)
    else:
        da = tl.fma(acc, x, 0.0)
        store(gradients + saved, da, stored)
        store(bias_sums + n, tl.sum(da, axis=0), n < D)


@TILES.tuned("D", "C", "G")
@triton.jit(do_not_specialize=["step", "steps"])
def cross_rnn_backward_step(
    x0, grad, d, activations, gradients, bias_sums, weight, B, W, step, steps,
    D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, STATES: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gate part of a step, after the product part of the step after it, where there is one.

    Writes d [T, L, B, D], da and dq to ``gradients`` [T, L, B, D, G], and their column sums to ``bias_sums`` [T, L, row tiles, D, G].
    ``grad`` is the output's gradient, of the last state [T, B, D] or of all states [T, L + 1, B, D] (STATES).
    """
    task = tl.program_id(1).to(tl.int64)
    K: tl.constexpr = C + D
    UNIT_TILES: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    row_tile, unit = tl.program_id(0) // UNIT_TILES, tl.program_id(0) % UNIT_TILES * BLOCK_D
    b = row_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    size, place, later = tl.cast(B, tl.int64) * D, task * steps + step, steps - 1 - step
    acc = add_gradient_product(
        tl.zeros((BLOCK_B, BLOCK_D), dtype=bias_sums.dtype.element_ty), gradients + (place + 1) * G * size,
        weight + (task * W + (step + 1) % W) * (D * G * K), tl.minimum(b, B - 1).to(tl.int64), unit + tl.arange(0, BLOCK_D),
        D, C, tl.where(later > 0, G * D, 0), D, K, G, PRECISION, BLOCK_K,
    )  # fmt: skip
    if STATES:
        grad += (task * (steps + 1) + step + 1) * size
    else:
        grad += task * size
    d += place * size
    activations += place * G * size
    gradients += place * G * size
    bias_sums += (place * (tl.num_programs(0) // UNIT_TILES) + row_tile) * (G * D)
    COUNT: tl.constexpr = 8 if BLOCK_D * gradients.dtype.element_ty.primitive_bitwidth >= 256 * 16 else 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        gate_part(split[i], x0, grad, d, activations, gradients, bias_sums, b, unit + i * (BLOCK_D // COUNT), B, later, D, G, STATES)


@INPUT_TILES.tuned("D", "C", "G")
@triton.jit(do_not_specialize=["T"])
def cross_rnn_backward_context(
    dcontext, gradients, weight, B, T, W,
    D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gradient of the context [L, B, C]; the second axis of the grid is the step."""
    step = tl.program_id(1).to(tl.int64)
    COLUMN_TILES: tl.constexpr = (C + BLOCK_D - 1) // BLOCK_D
    b = tl.program_id(0) // COLUMN_TILES * BLOCK_B + tl.arange(0, BLOCK_B)
    n = tl.program_id(0) % COLUMN_TILES * BLOCK_D + tl.arange(0, BLOCK_D)
    size = tl.cast(B, tl.int64) * (G * D)
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=tl.float64 if dcontext.dtype.element_ty == tl.float64 else tl.float32)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        acc = add_gradient_product(
            acc, gradients + (owner * tl.num_programs(1) + step) * size, weight + (owner * W + step % W) * (D * G * (C + D)),
            tl.minimum(b, B - 1).to(tl.int64), n, C, 0, G * D, D, C + D, G, PRECISION, BLOCK_K,
        )  # fmt: skip
    store(dcontext + (step * B + b)[:, None] * C + n[None, :], acc, inside(b, B, n, C))


@triton.jit
def x0_rest(acc, dx0, grad, d, activations, b, unit, B, T, steps, D: tl.constexpr, G: tl.constexpr, STATES: tl.constexpr):
    """The rest of dx0 of a tile: of each task d of the first step, the start state's own gradient, and d * g * a of every step."""
    n = unit + tl.arange(0, acc.shape[1])
    mask = inside(b, B, n, D)
    size = tl.cast(B, tl.int64) * D
    at = b.to(tl.int64)[:, None] * D + n[None, :]
    saved = b.to(tl.int64)[:, None] * (G * D) + n[None, :]
    for _task in range(T):
        acc += tl.load(d + at, mask=mask, other=0.0).to(acc.dtype)
        if STATES:
            acc += tl.load(grad + at, mask=mask, other=0.0).to(acc.dtype)
            grad += (steps + 1) * size
        for _ in range(steps):
            dg = tl.load(d + at, mask=mask, other=0.0).to(acc.dtype)
            if G == 2:
                dg *= tl.load(activations + D + saved, mask=mask, other=0.0).to(acc.dtype)
            acc = tl.fma(dg, tl.load(activations + saved, mask=mask, other=0.0).to(acc.dtype), acc)
            d += size
            activations += G * size
    store(dx0 + at, acc, mask)


@INPUT_TILES.tuned("D", "C", "G", "T")
@triton.jit(do_not_specialize=["T", "steps"])
def cross_rnn_backward_x0(
    dx0, gradients, weight, grad, d, activations, B, T, W, steps,
    D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, STATES: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gradient of x0: dh of the first step, and d * g * a of every step."""
    UNIT_TILES: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    b = tl.program_id(0) // UNIT_TILES * BLOCK_B + tl.arange(0, BLOCK_B)
    unit = tl.program_id(0) % UNIT_TILES * BLOCK_D
    size = tl.cast(B, tl.int64) * (G * D)
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=tl.float64 if dx0.dtype.element_ty == tl.float64 else tl.float32)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        acc = add_gradient_product(
            acc, gradients + owner * steps * size, weight + owner * W * (D * G * (C + D)), tl.minimum(b, B - 1).to(tl.int64),
            unit + tl.arange(0, BLOCK_D), D, C, G * D, D, C + D, G, PRECISION, BLOCK_K,
        )  # fmt: skip
    COUNT: tl.constexpr = 8 if BLOCK_D * gradients.dtype.element_ty.primitive_bitwidth >= 256 * 16 else 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        x0_rest(split[i], dx0, grad, d, activations, b, unit + i * (BLOCK_D // COUNT), B, T, steps, D, G, STATES)


@triton.jit(do_not_specialize=["steps"])
def cross_rnn_states(x0, activations, states, B, steps, D: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr):
    """States 1 to L - 1, [T, L - 1, B, D], from x0 and the saved a and g. A program computes BLOCK values of all steps of one task."""
    task = tl.program_id(1).to(tl.int64)
    size = tl.cast(B, tl.int64) * D
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    activations += task * steps * G * size + at // D * (G * D) + at % D
    states += task * (steps - 1) * size + at
    x = tl.load(x0 + at, mask=mask, other=0.0).to(tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32)
    h = x
    for _ in range(steps - 1):
        update = x
        if G == 2:
            update *= tl.load(activations + D, mask=mask, other=0.0).to(x.dtype)
        h = tl.fma(update, tl.load(activations, mask=mask, other=0.0).to(x.dtype), h)
        store(states, h, mask)
        activations += G * size
        states += size


def cross_rnn_backward(
    grad: Tensor,
    activations: Tensor,
    grad_mask: int,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    steps: int,
    cell: str,
    context: Tensor | None,
    return_states: bool,
    allow_tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator: the gradients of x0, the four banks and the context that ``grad_mask`` asks for; [0] for the others.

    Without saved activations it runs the forward again. The states that the weights' gradients need are computed from the activations.
    """
    n = Sizes.of(x0, shared_bias, private_bias, steps, cell, context)
    banks = shared_weight, shared_bias, private_weight, private_bias
    if n.B == 0 or n.T == 0 or grad_mask == 0:
        return zeros_of(grad_mask, x0, banks, context)
    if activations.dim() == 1:
        _, activations = cross_rnn(x0, *banks, steps, cell, context, False, allow_tf32, True)
    x0, grad, activations, empty = x0.contiguous(), grad.contiguous(), activations.contiguous(), x0.new_empty
    weight = product_operand(together(shared_weight, private_weight), allow_tf32)
    constants = n.constants(TILES, x0, allow_tf32, rows=n.B * n.T, columns=n.D)
    if constants["PRECISION"] == "tf32":
        weight = weight.flatten(2, 3).mT.contiguous()
    d, gradients = empty(n.T, n.L, n.B, n.D), empty(n.T, n.L, n.B, n.D, n.G)
    wide = torch.promote_types(x0.dtype, torch.float32)
    bias_sums = empty(n.T, n.L, divide_up(n.B, constants["BLOCK_B"]), n.D, n.G, dtype=wide)
    for step in reversed(range(n.L)):
        common.launch(
            cross_rnn_backward_step, n.grid(constants, n.D, n.T),
            x0=x0, grad=grad, d=d, activations=activations, gradients=gradients, bias_sums=bias_sums, weight=weight,
            B=n.B, W=n.W, step=step, steps=n.L, STATES=return_states, **constants,
        )  # fmt: skip
    dx0, dcontext, dbanks = empty(0), empty(0), [empty(0) for _ in banks]
    if grad_mask & GRAD_X0:
        dx0, constants = torch.empty_like(x0), n.constants(INPUT_TILES, x0, allow_tf32, rows=n.B, columns=n.D)
        common.launch(
            cross_rnn_backward_x0, n.grid(constants, n.D, 1),
            dx0=dx0, gradients=gradients, weight=weight, grad=grad, d=d, activations=activations,
            B=n.B, T=n.T, W=n.W, steps=n.L, STATES=return_states, **constants,
        )  # fmt: skip
    if grad_mask & GRAD_CONTEXT and context is not None:
        dcontext = empty(context.shape)
        if n.C:
            constants = n.constants(INPUT_TILES, x0, allow_tf32, rows=n.B * n.L, columns=n.C)
            common.launch(
                cross_rnn_backward_context, n.grid(constants, n.C, n.L),
                dcontext=dcontext, gradients=gradients, weight=weight, B=n.B, T=n.T, W=n.W, **constants,
            )  # fmt: skip
    if grad_mask & GRAD_WEIGHTS:
        states = empty(n.T, n.L - 1, n.B, n.D)
        if n.L > 1:
            grid = divide_up(n.B * n.D, 1024), n.T
            common.launch(cross_rnn_states, grid, x0=x0, activations=activations, states=states, B=n.B, steps=n.L, D=n.D, G=n.G, BLOCK=1024)
        total = input_products(n, gradients.flatten(3), x0, states, context).unflatten(2, (n.D, n.G))
        dbanks = weights_and_biases(n, total, bias_sums, x0.dtype)
    return dx0, *dbanks, dcontext  # type: ignore[return-value]  # four banks


def zeros_of(grad_mask: int, x0: Tensor, banks: Sequence[Tensor], context: Tensor | None, projections: Sequence[Tensor] = ()) -> Any:
    """The gradients where there is nothing to sum: zeros, or [0] where none is asked for."""
    weights, projected = [(bank, GRAD_WEIGHTS) for bank in banks], [(one, GRAD_PROJECTIONS) for one in projections]
    inputs = [(x0, GRAD_X0), *weights, (context, GRAD_CONTEXT), *projected]
    return tuple([x0.new_zeros(one.shape if one is not None and bits & grad_mask else 0) for one, bits in inputs])


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """The batched product in float32 at least: what is summed over tasks is not rounded before."""
    if left.dtype in (torch.float32, torch.float64):
        return torch.bmm(left, right)
    return torch.bmm(left, right, out_dtype=torch.float32) if left.is_cuda else torch.bmm(left.float(), right.float())


def input_products(n: Sizes, left: Tensor, x0: Tensor, states: Tensor, context: Tensor | None) -> Tensor:
    """The transposed ``left`` [T, L, B, N] times [context, h] of its step, summed over the steps of the same weights: [T, W, N, K].

    ``states`` [T, L - 1, B, D] are those before every step but the first, which reads x0.
    """
    found: list[Tensor] = []
    spans = [range(1), range(1, n.L)] if n.W == 1 else [range(step, step + 1) for step in range(n.L)]
    for span in filter(len, spans):
        rows = left[:, span.start : span.stop].flatten(1, 2).mT  # the steps of a span are one long sum
        h = states[:, span.start - 1 : span.stop - 1].flatten(1, 2) if span.start else x0.expand(n.T, -1, -1)
        product = wide_product(rows, h)
        if context is not None:
            of_context = context[span.start : span.stop].flatten(0, 1).expand(n.T, -1, -1)
            product = torch.cat([wide_product(rows, of_context), product], dim=2)
        found.append(product)
    return torch.stack(found, dim=1) if n.W > 1 else sum(found[1:], found[0]).unsqueeze(1)


def weights_and_biases(n: Sizes, weight: Tensor, bias_sums: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The gradients of the four banks, from those of all tasks' weights [T, W, D, G, ...] and biases [T, L, row tiles, D, G]."""
    bias = bias_sums.sum((1, 2)).unsqueeze(1) if n.W == 1 else bias_sums.sum(2)
    weights, biases = of_banks(weight, n.S, dtype), of_banks(bias, n.S, dtype)
    return [weights[0], biases[0], weights[1], biases[1]]


def of_banks(rows: Tensor, num_shared: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The gradients of two banks, [W, S, ...] and [T, W, P, ...], from those of all tasks' rows; a shared row's is its tasks' sum."""
    private = rows[:, :, num_shared:].to(dtype, copy=True, memory_format=torch.contiguous_format)
    return rows[:, :, :num_shared].sum(0).to(dtype).contiguous(), private
