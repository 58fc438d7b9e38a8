"""The operators, checked and sent to a backend. What they compute stands in :mod:`dcrnn_fast.reference.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from . import reference
from .backends import REASONS, extension, resolve
from .inputs import check_choice, check_count, may_read_values
from .sharing import GATES, Cell


def _reference_cross_rnn(*tensors: Tensor, recompute: bool, **arguments: Any) -> Tensor:
    return reference.cross_rnn(*tensors, **arguments)


_PARAM_GATHER: dict[str, Callable[..., Tensor]] = {"reference": reference.param_gather}
_CROSS_RNN: dict[str, Callable[..., Tensor]] = {"reference": _reference_cross_rnn}
if extension() is not None:
    from . import ops

    for _name in ("cpp", "cuda"):  # the dispatcher tells a CPU's tensors from a GPU's
        _PARAM_GATHER[_name] = ops.param_gather
        _CROSS_RNN[_name] = ops.cross_rnn
if REASONS["triton"] is None:
    # imported at the first call: Triton and what its operators' registration loads take seconds

    def _triton_param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        from .kernels import param_gather_op

        return param_gather_op.param_gather(shared, private, index)

    def _triton_cross_rnn(*tensors: Tensor, **options: Any) -> Tensor:
        from .kernels import cross_rnn_op

        return cross_rnn_op.cross_rnn(*tensors, **options)

    _PARAM_GATHER["triton"] = _triton_param_gather
    _CROSS_RNN["triton"] = _triton_cross_rnn

_checked_index: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Indices on a GPU whose values were checked, with their version and the rows that were there: reading one waits for the device."""


def param_gather(shared: Tensor, private: Tensor, index: Tensor, *, backend: str = "auto") -> Tensor:
    """Collect each task's parameter rows from the shared bank and from the task's own.

    Args:
        shared: floating [S, ...].
        private: [T, P, ...] of the same dtype, device and trailing shape.
        index: int32 [T, R], values in [0, S + P), repeats allowed; below S a shared row, S + p the task's private row p.
        backend: "auto", or a backend by name.

    Returns:
        [T, R, ...]. The gradient of a row that several places read is their sum in a fixed order: the same bits on every run.

    Raises:
        TypeError, ValueError: wrong dtype, device or shape.
        IndexError: an index outside [0, S + P).
        BackendUnavailable: a named backend that cannot run here.
    """

    def check() -> None:
        check_banks("shared", shared, "private", private, index)
        check_index(index, shared.shape[0] + private.shape[1])

    chosen = resolve(backend, device=shared.device, dtype=shared.dtype)
    return _checked(check, lambda: _PARAM_GATHER[chosen](shared, private, index), chosen == "cpp" and private.is_cpu and index.is_cpu)


def cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    *,
    steps: int,
    cell: Cell = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    recompute: bool = False,
    backend: str = "auto",
) -> Tensor:
    """A cross layer as the cell of a recurrence, for every task; formula in :func:`dcrnn_fast.reference.cross_rnn`.

    Letters: T tasks, B rows, D units, C context columns, K = C + D, G = 2 ("gated") or 1 ("cross") vectors a unit.

    Args:
        x0: floating [B, D], start state and re-injected input of all tasks.
        shared_weight: [S, G, K].
        shared_bias: [S, G].
        private_weight: [T, P, G, K].
        private_bias: [T, P, G].
        index: int32 [T, R], values in [0, S + P). R = D for weights tied over steps, or steps * D.
        steps: L >= 1.
        cell: "gated" or "cross".
        context: [steps, B, C], an upstream recurrence's state before each step; None for C = 0.
        return_states: return all states instead of the last.
        recompute: keep nothing for the backward but the inputs ("triton": and the states), and compute a and g again there. The
            reference ignores it.
        backend: "auto", or a backend by name.

    Returns:
        [T, B, D], or with ``return_states`` [T, steps + 1, B, D], the start state first. Under ``torch.autocast`` the inputs are cast as
        a matrix product's are, and the result is of autocast's dtype.

    Raises:
        TypeError, ValueError: wrong dtype, device, shape or range.
        IndexError: an index outside [0, S + P).
        BackendUnavailable: a named backend that cannot run here.
    """
    check_choice("cell", cell, tuple(GATES))
    check_count("steps", steps)
    x0, shared_weight, shared_bias, private_weight, private_bias, context = _autocast(
        x0, shared_weight, shared_bias, private_weight, private_bias, context
    )
    tensors = x0, shared_weight, shared_bias, private_weight, private_bias

    def check() -> None:
        check_cross_shapes(*tensors, index, steps, GATES[cell], context)
        check_index(index, shared_weight.shape[0] + private_weight.shape[1])

    chosen = resolve(backend, device=x0.device, dtype=x0.dtype)

    def run() -> Tensor:
        options = {"steps": steps, "cell": cell, "context": context, "return_states": return_states, "recompute": recompute}
        return _CROSS_RNN[chosen](*tensors, index, **options)

    return _checked(check, run, chosen == "cpp" and all(t.is_cpu for t in (*tensors, index, context) if t is not None))


def _checked(check: Callable[[], None], run: Callable[[], Tensor], run_checks: bool) -> Tensor:
    """``run`` after ``check``; or ``check`` only where ``run`` failed, if what runs checks the same in fewer words and less time."""
    if run_checks and not torch.compiler.is_compiling():
        try:
            return run()
        except (RuntimeError, TypeError, ValueError):
            check()
            raise
    check()
    return run()


def _autocast(*tensors: Tensor | None) -> list[Any]:
    """The tensors in autocast's dtype where autocast is on, by autocast's own rule: all floating ones but float64."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if device == "meta" or not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors]


def check_index(index: Tensor, rows: int) -> None:
    """Raise IndexError for an index outside [0, rows). An index on a GPU is read once, and again after it was changed."""
    if index.numel() and may_read_values():
        state = None if index.is_cpu or index.is_inference() else (index._version, rows)
        if state is not None and _checked_index.get(index) == state:
            return
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= rows:
            raise IndexError(f"index: got {low if low < 0 else high}, expected values in [0, S + P) = [0, {rows})")
        if state is not None:
            _checked_index[index] = state


def check_banks(shared_name: str, shared: Tensor, private_name: str, private: Tensor, index: Tensor) -> None:
    """Raise TypeError or ValueError unless the banks are floating [S, ...] and [T, P, ...], and ``index`` is int32 [T, R] beside them."""
    if index.dtype != torch.int32:
        raise TypeError(f"index: got dtype {index.dtype}, expected torch.int32")
    if index.dim() != 2:
        raise ValueError(f"index: got shape {list(index.shape)}, expected [T, R]")
    if not shared.is_floating_point():
        raise TypeError(f"{shared_name}: got dtype {shared.dtype}, expected a floating dtype")
    if shared.dim() < 1 or private.dim() != shared.dim() + 1 or private.shape[2:] != shared.shape[1:]:
        raise ValueError(
            f"{private_name}: got shape {list(private.shape)}, expected [T, P, ...] with the trailing shape of {shared_name} [S, ...], "
            f"which is {list(shared.shape)}"
        )
    if private.shape[0] != index.shape[0]:
        raise ValueError(f"{private_name}: got {private.shape[0]} tasks, expected {index.shape[0]} as index {list(index.shape)} has")
    check_alike(shared_name, shared, {private_name: private})
    if index.device != shared.device:
        raise ValueError(f"index: got device {index.device}, expected {shared.device} as {shared_name} is on")


def check_cross_shapes(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    steps: int,
    gates: int,
    context: Tensor | None,
) -> None:
    """Raise TypeError or ValueError unless the arguments of :func:`cross_rnn` fit each other."""
    if x0.dim() != 2 or x0.shape[1] == 0:
        raise ValueError(f"x0: got shape {list(x0.shape)}, expected [B, D] with D >= 1")
    batch, dim = x0.shape
    check_banks("shared_weight", shared_weight, "private_weight", private_weight, index)
    check_banks("shared_bias", shared_bias, "private_bias", private_bias, index)
    check_alike("x0", x0, {"shared_weight": shared_weight, "shared_bias": shared_bias, **({} if context is None else {"context": context})})
    if context is not None and (context.dim() != 3 or tuple(context.shape[:2]) != (steps, batch)):
        raise ValueError(f"context: got shape {list(context.shape)}, expected [{steps}, {batch}, C], one state before each step")
    columns = dim + (0 if context is None else context.shape[2])
    if tuple(shared_weight.shape[1:]) != (gates, columns):
        raise ValueError(f"shared_weight: got shape {list(shared_weight.shape)}, expected [S, {gates}, {columns}]")
    if tuple(shared_bias.shape) != tuple(shared_weight.shape[:2]):
        raise ValueError(f"shared_bias: got shape {list(shared_bias.shape)}, expected {list(shared_weight.shape[:2])}")
    if tuple(private_bias.shape) != tuple(private_weight.shape[:3]):
        raise ValueError(f"private_bias: got shape {list(private_bias.shape)}, expected {list(private_weight.shape[:3])}")
    if index.shape[1] not in (dim, steps * dim):
        raise ValueError(
            f"index: got {index.shape[1]} rows a task, expected D = {dim} (weights tied over steps) or steps * D = {steps * dim} (untied)"
        )


def check_alike(name: str, tensor: Tensor, others: dict[str, Tensor]) -> None:
    """Raise TypeError or ValueError unless ``others`` have the dtype and device of ``tensor``."""
    for other, value in others.items():
        if value.dtype != tensor.dtype:
            raise TypeError(f"{other}: got dtype {value.dtype}, expected {tensor.dtype} as {name} has")
        if value.device != tensor.device:
            raise ValueError(f"{other}: got device {value.device}, expected {tensor.device} as {name} is on")
