"""The model of a training step as a graph that ``torch.compile`` makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...data import Batch
from ...errors import ConfigError
from ..device import autocast


def compiled(
    model: nn.Module, batch: Batch, precision: str, device: torch.device, *, without_gradients: bool = False
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``model.forward`` of a DCRNN or its objective in training mode; everything behind its ``inputs`` is one compiled graph.

    The lookups in the tables of ids stay as they are: they check ids and dense values, and their gradients, which may be sparse, are added
    up in a fixed order. The graph is made now, for the rows of a first batch, so that it is the same whenever a run starts or resumes;
    ``without_gradients`` makes the graph of a forward without gradients too. It changes no weight and no random number. Raises
    :class:`ConfigError` if it cannot be made here.
    """
    torch.compiler.reset()  # no graph of an earlier model in this process, made for another number of rows
    of_model: Any = model
    graph = torch.compile(lambda *inputs: of_model.behind_inputs(*inputs), dynamic=True, fullgraph=True)

    def forward(ids: Tensor, dense: Tensor | None) -> Tensor:
        return graph(*of_model.inputs(ids, dense))

    ids, dense = batch.ids.to(device), None if batch.dense is None else batch.dense.to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            of_model.inputs(ids, dense)
        except (IndexError, TypeError, ValueError):  # the first step says what is wrong with the batch
            return forward
        try:
            for gradients in (False, True) if without_gradients else (True,):
                with torch.set_grad_enabled(gradients), autocast(precision, device):
                    logits = forward(ids, dense)
            logits.float().sum().backward()
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"compile is true, but torch.compile does not work here: {reason}; it needs a C++ compiler, and on a GPU Triton; "
                "install it, or set compile: false"
            ) from error
        finally:
            model.zero_grad(set_to_none=True)
    return forward
