"""Measures beforehand what ``auto`` will need."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...support import strict_json
from ..backends import REASONS
from . import decision, memory
from .decision import tuned
from .memory import STATIC, Choice, Key

logger = logging.getLogger("dcrnn_fast")


class Choices(dict[Key, Choice]):
    """What :func:`tune` found. As text, a table."""

    def __str__(self) -> str:
        if not self:
            return "nothing to measure: on this device auto's choice is fixed"
        rows = [[*key.columns().values(), str(choice)] for key, choice in sorted(self.items())]
        rows.insert(0, [*next(iter(self)).columns(), "choice"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def tune(model: torch.nn.Module, *inputs: Tensor, training: bool = True) -> Choices:
    """Measure beforehand all that ``auto`` needs for a model and a batch: for training and for inference.

    ``dcrnn_fast.training.tune`` and the command ``dcrnn-fast tune`` are another thing: they search for better settings of a training.
    Call it before the first request is served, or before a model is wrapped for several processes. While a process group of more than one
    rank exists, nothing is measured by itself; there, every rank must call this function. Rank 0 measures, and the others take its choices,
    so that all ranks compute alike; they give a model on their own device, and their inputs are not used. The choices go to the user's file
    too, on each rank whose card is that of rank 0. The model's mode, parameters, gradients and random states stay as they are.

    Args:
        model: a module of this package with ``backend="auto"``, on its device; it may be compiled.
        *inputs: what it is called with, such as ``ids`` and ``dense``, in the size that will be used.
        training: False measures for inference alone.

    Returns:
        The choice for each size that came up; empty on a CPU. ``print`` shows them as a table.

    Raises:
        ConfigError: an unknown DCRNN_FAST_AUTO. What the model raises for wrong inputs comes unchanged.
        RuntimeError: on other ranks, if rank 0 raised.

    Example:
        >>> import torch
        >>> import dcrnn_fast
        >>> model = dcrnn_fast.DCRNN({"item": 10}, tasks=("click", "consume"))
        >>> print(dcrnn_fast.tune(model, torch.zeros(8, 1, dtype=torch.int64)))
        nothing to measure: on this device auto's choice is fixed
    """
    return _of_rank_0(model, inputs, training) if decision.many_ranks() else _measured(model, inputs, training)


def _measured(model: torch.nn.Module, inputs: Sequence[Tensor], training: bool) -> Choices:
    found, modes = Choices(), {module: module.training for module in model.modules()}
    trainable = training and not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    token = tuned.set(found)
    try:
        model.eval()  # no dropout: the sizes are the same, and no random number is drawn
        # in inference mode, which the caller may have on, intermediate results need no gradients: those sizes are not training's
        with torch.inference_mode(False):
            given = [tensor.clone() if tensor.is_inference() else tensor for tensor in inputs]
            for gradients in (True, False) if trainable else (False,):
                # a compiled model measures nothing, so its graphs are left out
                with torch.set_grad_enabled(gradients), torch.compiler.set_stance("force_eager"):
                    model(*given)
    finally:
        tuned.reset(token)
        for module, before in modes.items():
            module.training = before
    return found


def _of_rank_0(model: torch.nn.Module, inputs: Sequence[Tensor], training: bool) -> Choices:
    """What rank 0 measures, on every rank."""
    device = next((tensor.device for tensor in (*model.parameters(), *inputs)), torch.device("cpu"))
    card, message = decision.card_name(device), [""]
    if torch.distributed.get_rank() == 0:
        try:
            found = _measured(model, inputs, training)
            rows = [{**memory.row_of(key, choice), "lasting": choice.lasting} for key, choice in found.items()]
            message = [json.dumps({"card": card, "choices": rows})]
        except Exception as error:
            message = [json.dumps({"error": f"{type(error).__name__}: {error}"})]
            raise
        finally:  # the other ranks wait for a message, whatever happens
            _broadcast(message, device)
        return found
    _broadcast(message, device)
    content: dict[str, Any] = strict_json.parse(message[0]) if message[0] else {"error": "it was interrupted"}
    if "error" in content:
        raise RuntimeError(f"rank 0 could not measure what auto needs: {content['error']}")
    taken = Choices()
    for row in content["choices"]:
        key, choice = memory.choice_of(row)
        # a file of this card must hold what was checked on such a card
        taken[key] = replace(choice, lasting=row["lasting"] and content["card"] == card)
        if (reason := REASONS.get(choice.backend, "it is unknown")) is not None:
            logger.warning(
                "auto takes %r for %s on this rank: rank 0 takes %r, which cannot be used here: %s", STATIC, key, choice.backend, reason
            )
            taken[key] = Choice(STATIC, lasting=False)
    memory.remember(card, taken)
    return taken


def _broadcast(message: list[Any], device: torch.device) -> None:
    """Send rank 0's message to every rank. NCCL takes it through the memory of this rank's GPU, which need not be the current one."""
    by_gpu = device.type == "cuda" and torch.distributed.get_backend() == "nccl"
    torch.distributed.broadcast_object_list(message, src=0, device=device if by_gpu else None)
