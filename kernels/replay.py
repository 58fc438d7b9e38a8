"""Repeats an operator's calls. Preparing one takes the host longer than small kernels take the GPU.

The first call of its kind runs as it is written. So does the second, and is noted: what it allocates, what it asks of PyTorch, and
its launches. Later calls run the :class:`Recording`, a function of these steps alone: the same on their own tensors, without a check or a
decision. What they have in common with the noted call is what the operators' checks and decisions depend on: shapes, strides, dtypes,
devices, alignment, options, and the choice of tiles. To note a call takes as long as several calls, so sizes that do not come again are not
worth it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch._C._dynamo import guards
from torch.library import wrap_triton
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from . import INTERPRETED, tile_choice
from .launch_options import on_device_of

DEVICE = "cuda"
"""The type of devices whose calls are repeated; tests on a fake GPU replace it."""
MOST = 512
"""Keys of kinds of calls that are kept, and kinds of a key. When there are more, all are forgotten."""

_kinds: dict[object, list[_Kind]] = {}
"""By the operator, its arguments that are no tensors, the shape of the first tensor, and the choice of tiles."""
_current = threading.local()


class _Place(NamedTuple):
    """Where a tensor's values lie: behind those of a slot's tensor by a number of values. ``whole``: it is this tensor.

    Slots are a call's tensors: its arguments, then what it makes. In the source of a recording, slot 5 is the variable ``t5``.
    """

    slot: int
    offset: int
    whole: bool


class _Step(NamedTuple):
    """A step of a recording: the source of an expression, the slots that it reads, and the one that it fills or None."""

    source: str
    reads: Sequence[int]
    fills: int | None


class Recording:
    """A call that can be repeated.

    Args:
        inputs: the tensors of the call that was noted.
        steps: what it did.
        results: the slots of its results.
        common: the tensors that all calls have in common unless they are results, by slot.
        names: what the steps' sources name, beside the slots.
    """

    def __init__(
        self, inputs: Sequence[Tensor], steps: Sequence[_Step], results: Sequence[int], common: dict[int, Tensor], names: dict[str, Any]
    ) -> None:
        self.bytes = [_bytes_read(tensor) for tensor in inputs]
        shared = {slot: tensor for slot, tensor in common.items() if slot not in results}
        names = {"on_device_of": on_device_of, **names, **{f"t{slot}": tensor for slot, tensor in shared.items()}}
        exec(_source(len(inputs), steps, results, shared), names)  # a loop over steps would take half as long again as they do
        self.repeated = names["repeated"]

    def has_memory(self, tensors: Sequence[Tensor]) -> bool:
        """Whether each tensor's values lie in its storage, whose memory a caller may have freed."""
        return all(
            [
                tensor.storage_offset() * tensor.element_size() + read <= tensor.untyped_storage().nbytes()
                for tensor, read in zip(tensors, self.bytes, strict=True)
            ]
        )

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """The results for a call's tensors: one tensor, or a tuple."""
        return self.repeated(*tensors)


def _source(num_inputs: int, steps: Sequence[_Step], results: Sequence[int], common: Collection[int]) -> str:
    """The source of the function that repeats a call: its steps, but for those whose result nothing reads or is common to all calls."""
    lasting, needed = {*range(num_inputs), *common}, {*results}
    given, found = (", ".join(f"t{slot}" for slot in slots) for slots in (range(num_inputs), results))
    lines = [f"return {found}"]  # from the last to the first
    for step in reversed(steps):
        if step.fills is None or (step.fills in needed and step.fills not in common):
            lines += [f"del t{slot}" for slot in {*step.reads} - needed - lasting]  # nothing reads it any more
            lines.append(step.source if step.fills is None else f"t{step.fills} = {step.source}")
            needed.update(step.reads)
    return "\n  ".join([f"def repeated({given}):\n with on_device_of(t0):", *reversed(lines)])


class _Kind:
    """Calls whose tensors are alike: in type, dispatch keys, dtype, device, shape, strides, and alignment.

    ``recording``: None after one call, False where the second one could not be noted.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.guards = guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
        self.alignment = [tensor.data_ptr() % 16 for tensor in tensors]
        self.recording: Recording | bool | None = None

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a call with these tensors, as many, is of this kind. One with a tensor in two places is of none."""
        return self.guards.check(*tensors) and [tensor.data_ptr() % 16 for tensor in tensors] == self.alignment


def repeat(name: str, arguments: Sequence[Any]) -> Callable[[], Any] | None:
    """What repeats a call like this one of an operator, or None; also where memory was freed, which the operator's checks say."""
    tensors, kinds = _alike(name, arguments)
    recording = next((kind.recording for kind in kinds if kind.holds(tensors)), None)
    return partial(recording.run, tensors) if isinstance(recording, Recording) and recording.has_memory(tensors) else None


@contextmanager
def recorded(name: str, arguments: Sequence[Any]) -> Iterator[Callable[[Any], Any]]:
    """Record a call of an operator inside the block, if one like it came before. Give the function that it yields the results; it returns
    them."""
    tensors, kinds = _alike(name, arguments)
    possible = all(map(_is_plain, tensors)) and len(set(map(id, tensors))) == len(tensors)
    kind = next((kind for kind in kinds if kind.holds(tensors)), None) if possible else None
    if kind is None or kind.recording is not None:
        yield lambda results: results
        if possible and kind is None:
            if len(kinds) >= MOST:
                kinds.clear()
            kinds.append(_Kind(tensors))
        return
    recorder = _current.recorder = _Recorder(tensors)
    try:
        with recorder:
            yield recorder.end
    finally:
        _current.recorder = None
    kind.recording = recorder.usable and Recording(tensors, recorder.steps, recorder.results, recorder.common, recorder.names)


def launch(kernel: Any, grid: Sequence[int], **arguments: Any) -> None:
    """Launch a kernel on the current device, and record it where a recording is made."""
    wrapped = kernel if INTERPRETED else wrap_triton(kernel)  # a graph that is traced has the launch as a node
    recorder = getattr(_current, "recorder", None)
    if recorder is None:
        wrapped[grid](**arguments)
        return
    with torch._C.DisableTorchFunction():  # what Triton asks of the tensors is not the recorder's
        compiled = wrapped[grid](**arguments)
        recorder.note_launch(kernel, compiled, grid, arguments)


def _alike(name: str, arguments: Sequence[Any]) -> tuple[list[Tensor], list[_Kind]]:
    """A call's tensors, and the kinds of calls that are like it but for the tensors."""
    tensors: list[Tensor] = []
    others: list[object] = [name, tile_choice.changes()]
    for value in arguments:
        (tensors if isinstance(value, Tensor) else others).append(value)
    if not _is_plain(tensors[0]):  # a traced one may have sizes that no dictionary takes
        return tensors, []
    key = tensors[0].shape, *others
    kinds = _kinds.get(key)
    if kinds is None:
        if len(_kinds) >= MOST:
            _kinds.clear()
        kinds = _kinds[key] = []
    return tensors, kinds


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is one of a GPU whose memory a kernel may read."""
    is_strided = type(tensor) in (Tensor, Parameter) and tensor.layout is torch.strided and not tensor.is_nested
    return is_strided and tensor.device.type == DEVICE and not INTERPRETED


class _Recorder(TorchFunctionMode):
    """Notes what a call asks of PyTorch, and its launches."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.results: list[int] = []
        self.num_slots = len(inputs)
        self.common: dict[int, Tensor] = {}
        """By its slot each empty tensor [0]: all calls have it in common unless it is a result."""
        # the calls by which PyTorch's compiler allocates and takes views, in half of the time of the public ones
        self.names: dict[str, Any] = {"empty": getattr(guards, f"_empty_strided_{DEVICE}"), "view": guards._reinterpret_tensor}  # type: ignore[attr-defined]
        """What the steps name."""
        self.places: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """Of each tensor its :class:`_Place`."""
        self.views: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """Of each view that a step reads its slot."""
        for slot, tensor in enumerate(inputs):
            self.places[tensor] = _Place(slot, 0, whole=True)
        self.usable = True

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and note it if it makes or changes a tensor."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.__name__
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            self._note(function, args, kwargs, None)
            return result
        if "out" in kwargs or (name.startswith("__i") and name.endswith("__")):  # changes a tensor that it was given, and was not noted
            self.usable = False
        made = [value for value in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(value, Tensor)]
        for tensor in [tensor for tensor in made if tensor not in self.places]:
            base = next((value for value in args if isinstance(value, Tensor) and _shares_memory(value, tensor)), None)
            place = None if base is None else self.places.get(base)
            if base is None:
                self.places[tensor] = _Place(self._new_slot(), 0, whole=True)
                self.usable = self.usable and tensor is result
                if tensor.shape == (0,):
                    with torch.inference_mode(False):
                        self.common[self.places[tensor].slot] = torch.empty_like(tensor)
                if name in ("new_empty", "empty_like"):
                    source = f"empty({tuple(tensor.shape)}, {tensor.stride()}, {self._word(tensor.dtype)})"
                    self.steps.append(_Step(source, [], self.places[tensor].slot))
                else:
                    self._note(function, args, kwargs, self.places[tensor].slot)
            elif place is not None:
                self.places[tensor] = _Place(place.slot, place.offset + tensor.storage_offset() - base.storage_offset(), whole=False)
        return result

    def end(self, results: Any) -> Any:
        """Note the results, one tensor or a tuple, and return them."""
        self.results = [self._slot(tensor) for tensor in (results if isinstance(results, tuple) else [results])]
        return results

    def note_launch(self, kernel: Any, compiled: Any, grid: Sequence[int], arguments: dict[str, Any]) -> None:
        """Note a launch. One that a graph traced, or with a tensor from elsewhere, makes the recording unusable."""
        values = [arguments[name] for name in kernel.arg_names]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if not isinstance(compiled, triton.compiler.CompiledKernel) or any(value not in self.places for value in tensors):
            self.usable = False
            return
        words = [self._address(value) if isinstance(value, Tensor) else self._word(value) for value in values]
        launcher = self._word(compiled[(*grid, 1, 1)[:3]])
        self.steps.append(_Step(f"{launcher}({', '.join(words)})", [self.places[value].slot for value in tensors], None))

    def _note(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], fills: int | None) -> None:
        """Note a call of PyTorch, whose tensors are among its arguments by place, or a list there."""
        self.usable = self.usable and not any(isinstance(value, Tensor) for value in kwargs.values())
        reads: list[int] = []
        words: list[str] = []
        for value in args:
            tensors = [value] if isinstance(value, Tensor) else value if _holds_tensors(value) else []
            slots = [self._slot(tensor) for tensor in tensors]
            listed = ", ".join(f"t{slot}" for slot in slots)
            words.append(self._word(value) if not slots else listed if isinstance(value, Tensor) else f"[{listed}]")
            reads += slots
        words += [f"{name}={self._word(value)}" for name, value in kwargs.items()]
        self.steps.append(_Step(f"{self._word(function)}({', '.join(words)})", reads, fills))

    def _address(self, tensor: Tensor) -> str:
        place = self.places[tensor]
        return f"t{place.slot}.data_ptr()" + (f" + {place.offset * tensor.element_size()}" if place.offset else "")

    def _word(self, value: Any) -> str:
        """The source of a value that is no tensor: a literal, or a name for it."""
        if value is None or type(value) in (int, bool):
            return repr(value)
        name = f"v{len(self.names)}"
        self.names[name] = value
        return name

    def _slot(self, tensor: Tensor) -> int:
        """The slot of a tensor. A view gets one of its own when a step reads it."""
        place = self.places.get(tensor)
        if place is None:  # it comes from elsewhere
            self.usable = False
            return 0
        if place.whole:
            return place.slot
        if tensor not in self.views:
            self.views[tensor] = fills = self._new_slot()
            source = f"view(t{place.slot}, {tuple(tensor.shape)}, {tensor.stride()}, {place.offset})"
            self.steps.append(_Step(source, [place.slot], fills))
        return self.views[tensor]

    def _new_slot(self) -> int:
        self.num_slots += 1
        return self.num_slots - 1


def _bytes_read(tensor: Tensor) -> int:
    """The bytes from a tensor's first value to the end of its last one."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size() if tensor.numel() else 0


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.untyped_storage()._cdata == other.untyped_storage()._cdata


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(isinstance(one, Tensor) for one in value)
