"""What ``auto`` takes for a size: what is known of it, what a measurement shows, or the static rule."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar

import torch

from ...errors import ConfigError
from ...kernels import tile_table
from ...support.tracing import constant_in_graphs, hooked
from . import memory
from .choice import STATIC, Choice, Key
from .examiner import NothingToCheckError, Problem, Run, Timer, measure, timer_of

logger = logging.getLogger("dcrnn_fast")

ENVIRONMENT = "DCRNN_FAST_AUTO"
MODES = ("measure", "cached", "static")
"""``measure``: measure a size at its first call. ``cached``: take what was measured, else the static rule. ``static``: the static rule."""
TRIES = 3
"""So many calls of a size may show nothing, because their results are zero or not finite. Then this process takes the static rule."""

_measuring = threading.Lock()
tuned: ContextVar[dict[Key, Choice] | None] = ContextVar("tuned", default=None)
"""The choices of :func:`~dcrnn_fast.ops.auto.tuning.tune` that runs now, or None."""


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
