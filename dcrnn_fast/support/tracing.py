"""What PyTorch does around a call: the transforms of ``torch.func``, forward-mode derivatives, tracing and capture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode


def transformed() -> bool:
    """Whether the call is inside a transform of ``torch.func`` (grad, vmap, jvp, jacrev, ...) or a level of forward-mode derivatives.

    The kernels have derivatives for ``backward()`` alone, so ``auto`` takes the reference here.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def observed() -> bool:
    """Whether somebody sees or records each operation of this thread: activation checkpointing, other hooks on saved tensors, dispatch
    modes such as those that count or trace, ``torch.jit.trace``."""
    return hooked() or _get_current_dispatch_mode() is not None or torch.jit.is_tracing()


def hooked() -> bool:
    """Whether activation checkpointing or other hooks on saved tensors are active."""
    hooks: object = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None


def traced() -> bool:
    """Whether a graph is being recorded: by ``torch.compile``, ``torch.export``, ``make_fx`` or ``torch.func.linearize``."""
    if torch.compiler.is_compiling():
        return True
    recorder = sys.modules.get("torch.fx.experimental.proxy_tensor")  # who records has imported it, which takes a while
    return recorder is not None and recorder.get_proxy_mode() is not None


Function = TypeVar("Function", bound=Callable[..., object])


def constant_in_graphs(function: Function) -> Function:
    """Does what ``torch.compiler.assume_constant_result`` does, which would import the compiler, and so double the time of our import."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def in_autocast(*tensors: Any) -> tuple[Any, ...]:
    """The tensors in autocast's dtype where it is on for the first one's device. Its own rule casts all floating dtypes but float64."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple([t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors])


class _Caller(local):
    has_checked = False


_caller = _Caller()


@contextmanager
def inputs_checked() -> Iterator[None]:
    """Inside the block, this thread's caller has checked the values of a model's inputs: to read them on a device would wait for it."""
    before, _caller.has_checked = _caller.has_checked, True
    try:
        yield
    finally:
        _caller.has_checked = before


def inputs_are_checked() -> bool:
    """Whether the call is inside a block of :func:`inputs_checked`. A graph that is recorded may meet other inputs."""
    return not traced() and _caller.has_checked


def may_read_values(tensor: Tensor) -> bool:
    """Whether code may branch on a tensor's values.

    It may not while a graph is traced or a CUDA graph is captured, on the meta device, and where ``vmap`` holds one tensor for many.
    """
    if not _has_values(tensor):
        return False
    if torch._C._are_functorch_transforms_active():
        inner = tensor
        while torch._C._functorch.is_functorch_wrapped_tensor(inner):
            if torch._C._functorch.is_batchedtensor(inner):
                return False
            inner = torch._C._functorch.get_unwrapped(inner)
    return True


def values_of(tensor: Tensor, dims: int) -> Tensor | None:
    """What a check of a tensor with ``dims`` dimensions may read: the tensor, or None where there are no values to read.

    Where ``vmap`` holds one tensor for many samples, it is those of all samples, side by side in dimension 0. A check may refuse them; a
    result must not depend on them.
    """
    if not _has_values(tensor):
        return None
    if torch._C._are_functorch_transforms_active():
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            sample_dim = torch._C._functorch.maybe_get_bdim(tensor)
            tensor = torch._C._functorch.get_unwrapped(tensor)
            if sample_dim >= 0:
                tensor = tensor.movedim(sample_dim, 0)
        if tensor.dim() > dims:
            tensor = tensor.flatten(0, tensor.dim() - dims)
    return tensor


def _has_values(tensor: Tensor) -> bool:
    if traced() or tensor.is_meta:
        return False
    return not (torch.cuda.is_available() and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())
