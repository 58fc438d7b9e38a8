"""Measures beforehand what ``auto`` will need."""

from __future__ import annotations

import torch
from torch import Tensor

from .choice import Choice, Key
from .decision import tuned


class Choices(dict[Key, Choice]):
    """What :func:`tune` found. As text, a table."""

    def __str__(self) -> str:
        if not self:
            return "nothing to measure: on this device auto's choice is fixed"
        rows = [[*key.columns().values(), str(choice)] for key, choice in sorted(self.items())]
        rows.insert(0, [*next(iter(self)).columns(), "choice"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def tune(model: torch.nn.Module, *inputs: Tensor) -> Choices:
    """Measure beforehand all that ``auto`` needs for a model and a batch: for training and for inference.

    Call it before the first request is served, or before a model is wrapped for several processes: while a process group of more than one
    rank exists, nothing is measured by itself. The choices go to the user's file too. The model's mode, parameters, gradients and random
    states stay as they are.

    Args:
        model: a module of this package with ``backend="auto"``, on its device; it may be compiled.
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
    token = tuned.set(found)
    try:
        model.eval()  # no dropout: the sizes are the same, and no random number is drawn
        for gradients in (True, False):
            # a compiled model measures nothing, so its graphs are left out
            with torch.set_grad_enabled(gradients), torch.compiler.set_stance("force_eager"):
                model(*inputs)
    finally:
        tuned.reset(token)
        for module, before in training.items():
            module.training = before
    return found
