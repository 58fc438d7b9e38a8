"""Which backend ``auto`` takes on a GPU: checked against float64 and measured at the first call of a size, then remembered.

On a CPU the order of :data:`dcrnn_fast.backends.AUTO` holds: every recorded benchmark supports it. How fast kernels are on a GPU depends on
the card. So there every backend that can run is a *candidate*. It must give the reference's results, as exactly as plain PyTorch
computes them, and take at least a tenth less time than the reference; else the reference computes. A candidate that raises or runs
out of memory is refused for this process. docs/triton.md explains the rules for people.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import fields

import torch
from torch import Tensor

from ..errors import ConfigError
from ..kernels import tile_table
from . import memory
from .choice import STATIC, Choice, Key, bucket
from .examiner import Problem, Run, Timer, measure, timer_of

__all__ = ["DEVICES", "STATIC", "Choice", "Choices", "Key", "Problem", "backend_for", "bucket", "summary", "tune"]

logger = logging.getLogger("dcrnn_fast")

ENVIRONMENT = "DCRNN_FAST_AUTO"
MODES = ("measure", "cached", "static")
"""``measure``: measure a size at its first call. ``cached``: take what was measured, else the static rule. ``static``: the static rule."""
DEVICES = ("cuda",)
"""The types of devices on which ``auto`` measures."""

_measuring = threading.Lock()
_tuned: ContextVar[dict[Key, Choice] | None] = ContextVar("_tuned", default=None)
"""The choices of the :func:`tune` that runs now, or None."""


def mode() -> str:
    """The value of DCRNN_FAST_AUTO. Raises ConfigError for an unknown one."""
    value = os.environ.get(ENVIRONMENT, MODES[0])
    if value not in MODES:
        raise ConfigError(f"{ENVIRONMENT}={value!r}: expected one of {', '.join(map(repr, MODES))}")
    return value


def backend_for(key: Key, device: torch.device, candidates: Callable[[], Mapping[str, Run]], problem: Callable[[], Problem]) -> str:
    """The backend that ``auto`` takes for a call whose values may be read: what is known, or what a measurement shows.

    ``candidates`` must hold "reference". Both callables are called only if something is measured.

    Raises ConfigError: an unknown DCRNN_FAST_AUTO.
    """
    wanted, tuning = mode(), _tuned.get()
    if wanted == "static" and tuning is None:
        return STATIC
    card = card_name(device)
    found = memory.recall(card, key)
    if found is None:
        if (tuning is None and (wanted == "cached" or _many_ranks())) or not _measuring.acquire(blocking=tuning is not None):
            return STATIC
        try:
            # another thread may have measured this size while this one waited
            found = memory.recall(card, key) or _measured(key, card, candidates, problem, timer_of(device))
        finally:
            _measuring.release()
    if tuning is not None:
        tuning[key] = found
    return found.backend


def _measured(key: Key, card: str, candidates: Callable[[], Mapping[str, Run]], problem: Callable[[], Problem], timer: Timer) -> Choice:
    try:
        choice = measure(candidates(), problem(), timer)
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


class Choices(dict[Key, Choice]):
    """What :func:`tune` found. As text, a table."""

    def __str__(self) -> str:
        if not self:
            return "nothing to measure: on this device auto's choice is fixed"
        names = [one.name for one in fields(Key)]
        rows = [[*names, "choice"], *([*(str(getattr(key, name)) for name in names), str(choice)] for key, choice in sorted(self.items()))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def tune(model: torch.nn.Module, *inputs: Tensor) -> Choices:
    """Measure beforehand all that ``auto`` needs for a model and a batch: for training and for inference.

    Call it before the first request is served, or before a model is wrapped for several processes: while a process group of more than one
    rank exists, nothing is measured by itself. The choices go to the user's file too. The model's mode, parameters, gradients and random
    states stay as they are.

    Args:
        model: a module of this package with ``backend="auto"``, on its device.
        *inputs: what it is called with, such as ``ids`` and ``dense``, in the size that will be used.

    Returns:
        The choice for each size that came up; empty on a CPU. ``print`` shows them as a table.

    Raises:
        ConfigError: an unknown DCRNN_FAST_AUTO. What the model raises for wrong inputs comes unchanged.

    Example:
        >>> import torch
        >>> import dcrnn_fast
        >>> model = dcrnn_fast.DCRNN({"item": 10}, tasks=("click", "consume"))
        >>> print(dcrnn_fast.tune(model, torch.zeros(8, 1, dtype=torch.int64)))
        nothing to measure: on this device auto's choice is fixed
    """
    found, training = Choices(), {module: module.training for module in model.modules()}
    token = _tuned.set(found)
    try:
        model.eval()  # no dropout: the sizes are the same, and no random number is drawn
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                model(*inputs)
    finally:
        _tuned.reset(token)
        for module, before in training.items():
            module.training = before
    return found


def summary() -> str:
    """One line for people: the mode, and what was measured. Raises ConfigError for an unknown mode."""
    return f"{mode()}; {memory.summary()}"


def _many_ranks() -> bool:
    """Whether other processes of a group may choose otherwise: then the results of the ranks would differ in their last bits."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
