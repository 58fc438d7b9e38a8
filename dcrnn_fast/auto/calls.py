"""Which backend ``auto`` takes for a call of an operator: whether anything may be measured there, and what the choice depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from ..backends import BACKENDS, REASONS
from ..transforms import may_read_values, observed, transformed
from . import decision
from .choice import INPUTS, STATIC, Key, bucket
from .examiner import Problem, Run


def backend_of(
    operator: str, kind: str, tensors: Sequence[Tensor], index: Tensor, sizes: Sequence[int], run_of: Callable[[str], Run]
) -> str:
    """The backend that ``auto`` takes for a call with checked arguments, on a device where it measures.

    Args:
        operator: "cross_rnn" or "param_gather".
        kind: the dtype as the products see it.
        tensors: the differentiable inputs, in the order of :data:`~dcrnn_fast.auto.choice.INPUTS`.
        index: the index.
        sizes: see :data:`~dcrnn_fast.auto.choice.SIZES`.
        run_of: returns the operator of a backend, from the differentiable inputs to the output.
    """
    first = tensors[0]
    # a graph that is traced or captured, and what is no plain tensor, has no values to check; nothing else may see a measurement
    if not may_read_values(first) or transformed() or observed() or _is_empty(operator, first, index):
        return STATIC
    if any([type(tensor) not in (Tensor, Parameter) for tensor in (*tensors, index)]):
        return STATIC
    needed = [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]
    names = tuple([name for name, need in zip(INPUTS[operator], needed, strict=False) if need])
    has_batch = operator == "cross_rnn"
    key = Key(operator, kind, names, tuple(sizes), bucket(first.shape[0]) if has_batch else 0)

    def problem() -> Problem:
        if has_batch:
            return Problem(tuple(tensors), {0: 0, 5: 1} if len(tensors) > 5 else {0: 0}, tuple(needed), kind)
        # rows are copied whatever they hold, and a bias that starts at zero would show nothing
        return Problem(tuple(map(_numbers, tensors)), {}, tuple(needed), kind)

    return decision.backend_for(key, first.device, lambda: {name: run_of(name) for name in _candidates(first.device.type)}, problem)


def _is_empty(operator: str, first: Tensor, index: Tensor) -> bool:
    """Whether the output has no values."""
    return index.numel() == 0 or 0 in (first.shape if operator == "cross_rnn" else first.shape[1:])


def _candidates(device: str) -> list[str]:
    """The reference, and the backends that can run on a type of device."""
    others = [one.name for one in BACKENDS.values() if device in one.devices and REASONS[one.name] is None]
    return [STATIC, *(name for name in others if name != STATIC)]


def _numbers(like: Tensor) -> Tensor:
    """Numbers of order 1 in the place of a tensor's values, without the user's random generator."""
    with torch.inference_mode(False), torch.no_grad():
        values = torch.arange(like.numel(), device=like.device, dtype=torch.float64).mul_(0.754877).sin_()
        return values.to(like.dtype).view(like.shape)
