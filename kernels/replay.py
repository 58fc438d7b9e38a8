"""Repeats launches. Preparing one takes the host longer than a small kernel takes the GPU.

:func:`launch` starts every kernel. It remembers what Triton compiled for the same constants and numbers, so that Triton need not look at
them again. A forward, which is called most, is repeated as a whole. A :class:`Recording` holds of each launch the compiled kernel, the grid
and all arguments, in which places stand for the tensors of a call. It serves calls with the same :func:`key`: the same weights at the same
addresses, and inputs of the same shape. Such a call needs no other check of its arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import Parameter

from . import INTERPRETED, tile_choice
from .launch_options import on_device_of

INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "index", "context")
"""The places of a call's tensors; those of its output, states and activations follow."""
DEVICE = "cuda"
"""The type of devices whose launches are repeated; tests on a fake GPU replace it."""
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
"""What a launch says beside the kernel's arguments; always in the same order."""
MOST = 1024
"""Recordings that are kept, and compiled kernels. When there are more, all are forgotten."""

Key = tuple[object, ...]
_recordings: dict[Key, Recording] = {}
_compiled: dict[Key, triton.compiler.CompiledKernel] = {}
"""By the device, the kernel, and what Triton may compile it for: all numbers and options, and each tensor's dtype and alignment."""
_current = threading.local()


@dataclass
class Recording:
    """The launches of a forward, and the shapes of its output, states and activations."""

    places: dict[int, int]
    """The places of the call's tensors by ``id``, while it is made."""
    launches: list[tuple[Callable[..., None], list[Any], list[tuple[int, int]]]] = field(default_factory=list)
    buffers: list[list[int]] = field(default_factory=list)
    usable: bool = True

    def add(self, kernel: Any, compiled: Any, grid: Sequence[int], arguments: dict[str, Any]) -> None:
        """Add a launch. One that a graph traced, or with a tensor that has no place, makes the recording unusable."""
        if not isinstance(compiled, triton.compiler.CompiledKernel):
            self.usable = False
            return
        values = [arguments[name] for name in kernel.arg_names]
        tensors = [(at, self.places.get(id(value), -1)) for at, value in enumerate(values) if isinstance(value, Tensor)]
        self.usable = self.usable and all(place >= 0 for _, place in tensors)
        for at, _ in tensors:
            values[at] = None
        self.launches.append((compiled[(*grid, 1, 1)[:3]], values, tensors))

    def run(self, inputs: Sequence[Tensor | None], *, return_states: bool, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Launch everything for these inputs, and return the output, states and activations as the forward does."""
        x0 = inputs[0]
        assert x0 is not None
        out, states, activations = (x0.new_empty(shape) for shape in self.buffers)
        if return_states:
            out[:, 0] = x0
        pointers = [0 if tensor is None else tensor.data_ptr() for tensor in (*inputs, out, states, activations)]
        with on_device_of(x0):
            for launch, values, tensors in self.launches:
                arguments = list(values)
                for at, place in tensors:
                    arguments[at] = pointers[place]
                launch(*arguments)
        return out, states if keep_states else x0.new_empty(0), activations


def key(inputs: Sequence[Tensor | None], *options: object) -> Key | None:
    """What a call must have in common with another one to have its launches repeated, or None if they cannot be.

    ``inputs`` are x0, the banks, the index and the context; ``options`` are what the launches depend on besides.
    """
    if INTERPRETED:
        return None
    found: list[object] = [tile_choice.changes(), *options]
    for tensor in inputs:
        if tensor is None:
            continue
        if type(tensor) not in (Tensor, Parameter) or tensor.layout != torch.strided or tensor.is_nested:
            return None
        if tensor.device.type != DEVICE or not tensor.is_contiguous():
            return None
        found += (tensor.shape, tensor.dtype, tensor.device)
    # the address of a weight stands for its memory, which was checked when the launches were recorded
    found += [tensor.data_ptr() for tensor in inputs[1:6]]  # type: ignore[union-attr]
    for tensor in (inputs[0], inputs[6]):
        if tensor is not None:
            address = tensor.data_ptr()
            end = (tensor.storage_offset() + tensor.numel()) * tensor.element_size()
            if not address or end > tensor.untyped_storage().nbytes():
                return None
            found.append(address % 16)
    return tuple(found)


def find(wanted: Key | None) -> Recording | None:
    """The recording of these launches, or None."""
    return None if wanted is None else _recordings.get(wanted)


@contextmanager
def recorded(wanted: Key | None, inputs: Sequence[Tensor | None]) -> Iterator[None]:
    """Record what is launched inside the block, unless ``wanted`` is None."""
    if wanted is None:
        yield
        return
    recording = Recording({id(tensor): place for place, tensor in enumerate(inputs) if tensor is not None})
    # one tensor in two places: in a later call they may be two
    recording.usable = len(recording.places) == sum(tensor is not None for tensor in inputs)
    _current.recording = recording
    try:
        yield
    finally:
        _current.recording = None
    if recording.usable and recording.launches:
        recording.places = {}
        if len(_recordings) >= MOST:
            _recordings.clear()
        _recordings[wanted] = recording


def made(*buffers: Tensor) -> None:
    """Tell the recording, if one is made, the output, states and activations before they are launched on."""
    recording = getattr(_current, "recording", None)
    if recording is not None:
        first = len(INPUTS)
        recording.buffers = [list(tensor.shape) for tensor in buffers]
        recording.places.update({id(tensor): first + place for place, tensor in enumerate(buffers)})


def launch(kernel: Any, grid: Sequence[int], **arguments: Any) -> None:
    """Launch a kernel on the current device, and record it where a recording is made."""
    recording = getattr(_current, "recording", None)
    if INTERPRETED or not isinstance(kernel, triton.JITFunction):
        compiled = kernel[grid](**arguments)  # a graph that is traced has the launch as a node
    else:
        values = [arguments[name] for name in kernel.arg_names]
        options = [arguments[name] for name in arguments if name in OPTIONS]
        kinds = [(value.dtype, value.data_ptr() % 16) if isinstance(value, Tensor) else value for value in values]
        known = (torch.cuda.current_device() if DEVICE == "cuda" else 0, kernel, *kinds, *options)
        compiled = _compiled.get(known)
        if compiled is None:
            compiled = kernel[grid](**arguments)
            if isinstance(compiled, triton.compiler.CompiledKernel):
                if len(_compiled) >= MOST:
                    _compiled.clear()
                _compiled[known] = compiled
        else:
            compiled[(*grid, 1, 1)[:3]](*[value.data_ptr() if isinstance(value, Tensor) else value for value in values])
    if recording is not None:
        recording.add(kernel, compiled, grid, arguments)
