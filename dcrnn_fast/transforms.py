"""What PyTorch does around a call: the transforms of ``torch.func``, forward-mode derivatives, tracing and capture."""

from __future__ import annotations

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


def may_read_values(tensor: Tensor) -> bool:
    """Whether code may branch on a tensor's values.

    It may not while a graph is traced or a CUDA graph is captured, on the meta device, and where ``vmap`` holds one tensor for many.
    """
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    if torch._C._are_functorch_transforms_active():
        inner = tensor
        while torch._C._functorch.is_functorch_wrapped_tensor(inner):
            if torch._C._functorch.is_batchedtensor(inner):
                return False
            inner = torch._C._functorch.get_unwrapped(inner)
    return not (torch.cuda.is_available() and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())
