"""Which backend ``auto`` takes for a call of an operator: what is known of its size, what a measurement shows, or the static rule."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...errors import ConfigError
from ...kernels import tile_table
from ...support.tracing import constant_in_graphs, hooked, may_read_values, observed, transformed
from ..backends import BACKENDS, REASONS
from ..checks import check_arguments
from ..cross_rnn import tf32
from . import memory
from .examiner import NothingToCheckError, Problem, Run, Timer, measure, numbers, timer_of
from .memory import INPUTS, STATIC, Choice, Key, bucket

logger = logging.getLogger("dcrnn_fast")

ENVIRONMENT = "DCRNN_FAST_AUTO"
MODES = ("measure", "cached", "static")
"""``measure``: measure a size at its first call. ``cached``: take what was measured, else the static rule. ``static``: the static rule."""
TRIES = 3
"""So many calls of a size may show nothing, because their results are zero or not finite. Then this process takes the static rule."""

_measuring = threading.Lock()
tuned: ContextVar[dict[Key, Choice] | None] = ContextVar("tuned", default=None)
"""The choices of :func:`~dcrnn_fast.ops.auto.tuning.tune` that runs now, or None."""


def measured_backend(arguments: Any, recompute: bool, implementation: Callable[[str], Any]) -> str:
    """The backend that ``auto`` takes for a call on a device where it measures.

    Args:
        arguments: of an operator, as :class:`..cross_rnn.Arguments`. They are checked before a measurement.
        recompute: as in :func:`dcrnn_fast.functional.cross_rnn`.
        implementation: what a backend offers, see :class:`..registry.Implementation`.
    """
    if transformed():
        return STATIC
    operator, first = arguments.operator(), arguments[0]
    inputs = {name: getattr(arguments, name) for name in INPUTS[operator] if getattr(arguments, name) is not None}
    tensors, indices, sizes = list(inputs.values()), [index for index, *_ in arguments.indices()], arguments.sizes(recompute)
    kind = _kind(operator, first)
    needed = [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]
    needs = tuple([name for name, need in zip(inputs, needed, strict=True) if need])
    if torch.compiler.is_compiling():
        return _in_traced_graph(operator, kind, needs, sizes, tensors)
    # what is no plain tensor has no values to check, and nobody may see a measurement
    if observed() or any([type(tensor) not in (Tensor, Parameter) for tensor in (*tensors, *indices)]):
        return STATIC
    if _is_empty(operator, first, indices[0]):
        return STATIC
    key = Key(operator, kind, needs, sizes, bucket(first.shape[0]) if _has_batch(operator) else 0)
    if not may_read_values(first):
        return backend_in_capture(key, first.device)

    def candidates() -> dict[str, Run]:
        by_backend = {name: implementation(name).compute[operator] for name in _candidates(first.device.type)}
        return {name: partial(_run, compute, arguments, tuple(inputs), recompute) for name, compute in by_backend.items()}

    def problem() -> Problem:
        if _has_batch(operator):
            with_rows = {"x0": 0, "context": 1}
            row_dimension = {i: with_rows[name] for i, name in enumerate(inputs) if name in with_rows}
            return Problem(tuple(tensors), row_dimension, tuple(needed), kind)
        # rows are copied whatever they hold, and a bias that starts at zero would show nothing
        return Problem(tuple([numbers(tensor).to(tensor.dtype) for tensor in tensors]), {}, tuple(needed), kind)

    return backend_for(key, first.device, candidates, problem, partial(check_arguments, arguments))


def _run(compute: Callable[[Any, bool], Tensor], arguments: Any, names: tuple[str, ...], recompute: bool, *inputs: Tensor) -> Tensor:
    """Compute with other inputs in place of those of a call."""
    return compute(arguments._replace(**dict(zip(names, inputs, strict=True))), recompute)


def _kind(operator: str, first: Tensor) -> str:
    """The dtype as the products see it."""
    if operator != "param_gather" and first.is_cuda and first.dtype == torch.float32 and tf32():
        return "tf32"
    return str(first.dtype).removeprefix("torch.")


def _has_batch(operator: str) -> bool:
    return operator != "param_gather"


def _in_traced_graph(operator: str, kind: str, needs: tuple[str, ...], sizes: Sequence[int], tensors: Sequence[Tensor]) -> str:
    """The same while a graph is traced. Sizes that the graph leaves open stay open: they take the static rule."""
    symbolic = torch.fx.experimental.symbolic_shapes
    if any([is_traceable_wrapper_subclass(tensor) for tensor in tensors]) or not all([symbolic.has_static_value(size) for size in sizes]):
        return STATIC
    # the tracer holds some fixed sizes as symbols, which are no constants to a function
    fixed = tuple([int(symbolic.guard_scalar(size)) for size in sizes])
    # Export needs no `no_grad` to make a program for inference: that parameters require gradients says nothing there. In PyTorch 2.10 and
    # 2.11 is_exporting() is true in every compiled graph, which its flag is not.
    preferred = ((), needs) if torch.compiler._is_exporting_flag else (needs,)
    return backend_in_graph(operator, kind, preferred, fixed, tensors[0].device)


def _is_empty(operator: str, first: Tensor, index: Tensor) -> bool:
    """Whether the output has no values."""
    return index.numel() == 0 or 0 in (first.shape if _has_batch(operator) else first.shape[1:])


def _candidates(device: str) -> list[str]:
    """The reference, and the backends that can run on a type of device."""
    others = [one.name for one in BACKENDS.values() if device in one.devices and REASONS[one.name] is None]
    return [STATIC, *(name for name in others if name != STATIC)]


def mode() -> str:
    """The value of DCRNN_FAST_AUTO. Raises ConfigError for an unknown one."""
    value = os.environ.get(ENVIRONMENT, MODES[0])
    if value not in MODES:
        raise ConfigError(f"{ENVIRONMENT}={value!r}: expected one of {', '.join(map(repr, MODES))}")
    return value


def backend_for(
    key: Key,
    device: torch.device,
    candidates: Callable[[], Mapping[str, Run]],
    problem: Callable[[], Problem],
    check: Callable[[], None] = lambda: None,
) -> str:
    """The backend that ``auto`` takes for a call whose values may be read: what is known, or what a measurement shows.

    ``candidates`` must hold "reference". The callables are called only if something is measured, ``check`` first.

    Raises ConfigError: an unknown DCRNN_FAST_AUTO. What ``check`` raises comes unchanged.
    """
    wanted, tuning = mode(), tuned.get()
    if wanted == "static" and tuning is None:
        return STATIC
    card = card_name(device)
    found = memory.recall(card, key)
    if found is None:
        if (tuning is None and (wanted == "cached" or many_ranks())) or not _measuring.acquire(blocking=tuning is not None):
            return STATIC
        try:
            # another thread may have measured this size while this one waited
            found = memory.recall(card, key)
            if found is None:
                check()
                found = _measured(key, card, candidates, problem, timer_of(device))
        finally:
            _measuring.release()
    if tuning is not None:
        tuning[key] = found
    return found.backend


@constant_in_graphs
def backend_in_graph(operator: str, kind: str, needs: tuple[tuple[str, ...], ...], sizes: tuple[int, ...], device: torch.device) -> str:
    """The backend for a call in a graph that is compiled or exported: its values cannot be read, and any batch may follow.

    That is the choice of the same size if all batch sizes that were measured have the same one, else the static rule. Of several ``needs``
    the first counts of which anything is known. A compiled graph keeps what it got: a later measurement does not compile it again. Under
    hooks on saved tensors, such as those of non-reentrant activation checkpointing, the static rule holds, so that a recomputation takes
    the same backend.

    Raises ConfigError: an unknown DCRNN_FAST_AUTO.
    """
    if mode() == "static" or hooked() or (device.type == "cuda" and not torch.cuda.is_available()):
        return STATIC
    known = memory.known(card_name(device))
    for need in needs:
        wanted = Key(operator, kind, need, sizes, 0)
        taken = {choice.backend for key, choice in known.items() if key._replace(batch=0) == wanted}
        if taken:
            return taken.pop() if len(taken) == 1 else STATIC
    return STATIC


def backend_in_capture(key: Key, device: torch.device) -> str:
    """The backend for a call that is captured in a CUDA graph: its values cannot be read, but its batch size is fixed.

    That is the choice of its own size; if there is none, that of :func:`backend_in_graph`. Raises ConfigError: an unknown DCRNN_FAST_AUTO.
    """
    found = None if mode() == "static" else memory.recall(card_name(device), key)
    return found.backend if found else backend_in_graph(key.operator, key.kind, (key.needs,), key.sizes, device)


def _measured(key: Key, card: str, candidates: Callable[[], Mapping[str, Run]], problem: Callable[[], Problem], timer: Timer) -> Choice:
    try:
        choice = measure(candidates(), problem(), timer)
    except NothingToCheckError as error:
        choice = Choice(STATIC, refused={"every candidate": str(error)}, lasting=False)
        if memory.tried(card, key) < TRIES:
            return choice
        logger.info("auto takes %s for %s on %s, after %d calls of this kind", choice, key, card, TRIES)
    except Exception as error:  # a measurement that fails must never be the user's problem
        choice = Choice(STATIC, lasting=False)
        logger.warning("auto takes %r for %s on %s: the measurement failed (%s: %s)", STATIC, key, card, type(error).__name__, error)
    else:
        logger.info("auto takes %s for %s on %s", choice, key, card)
    memory.remember(card, {key: choice})
    return choice


def card_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return tile_table.card_of(device).name or "cpu"


def summary() -> str:
    """One line for people: the mode, and what was measured. Raises ConfigError for an unknown mode."""
    return f"{mode()}; {memory.summary()}"


def many_ranks() -> bool:
    """Whether other processes of a group may choose otherwise: then the results of the ranks would differ in their last bits."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
