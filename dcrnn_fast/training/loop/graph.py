"""How a model computes in training: on the backends that were measured, and as a compiled graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...data import Batch, BlockLoader
from ...errors import ConfigError
from ...ops import auto
from ...ops.backends import requested
from ..device import autocast
from ..evaluate.predict import BATCH
from .job import Job


def measured_backends(job: Job, model: nn.Module, loader: BlockLoader, precision: str) -> str:
    """Let ``auto`` measure what steps of the ``loader`` and evaluations need: a traced graph cannot. Returns what it takes.

    "" where ``auto`` does not choose. The model's gradients and random states stay as they are.
    """
    if job.device.type not in auto.DEVICES or requested(job.config.backend) != "auto":
        return ""
    before = set(auto.known)
    evaluated = [BlockLoader(rows, BATCH) for name in ("valid", "test") if (rows := job.dataset.splits.get(name))]
    calls = [(loader, precision, True), (loader, precision, False), *((one, "float32", False) for one in evaluated)]
    model.eval()  # no dropout: the sizes are the same, and no random number is drawn
    for batches, used, gradients in calls:
        with torch.set_grad_enabled(gradients), autocast(used, job.device):
            for inputs in _first_and_last(batches, job.device):
                model(*inputs)
    model.train()
    choices = [choice for key, choice in auto.known.items() if key not in before] or list(auto.known.values())
    taken = sorted(Counter(choice.backend for choice in choices).items())
    job.report.note(f"auto takes {', '.join(f'{name} for {count} size' + 's' * (count != 1) for name, count in taken)}")
    return f"auto ({', '.join(name for name, _ in taken)})"


def _first_and_last(loader: BlockLoader, device: torch.device) -> list[list[Tensor]]:
    """What a model is called with for the first batch and, if the last one is shorter, for so many of its rows; as many on every rank."""
    batch, rows_left = next(loader.batches()), len(loader.split) % loader.batch_size
    inputs = [part.to(device) for part in (batch.ids, batch.dense) if part is not None]
    return [inputs, [part[: rows_left // loader.shards] for part in inputs]] if rows_left else [inputs]


def compiled(
    model: nn.Module, batch: Batch, precision: str, device: torch.device, *, without_gradients: bool = False
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``model.forward`` of a DCRNN or its objective in training mode; everything after its ``features`` is one compiled graph.

    The lookups in the tables of ids stay as they are: their gradients, which may be sparse, are added up in a fixed order. The graph is
    made now, for the rows of a first batch, so that it is the same whenever a run starts or resumes; ``without_gradients`` makes that of a
    forward without gradients too. It changes no weight and no random number. Raises :class:`ConfigError` if it cannot be made here.
    """
    torch.compiler.reset()  # no graph of an earlier model in this process, made for another number of rows
    of_model: Any = model
    graph = torch.compile(of_model.outputs, dynamic=True, fullgraph=True)

    def forward(ids: Tensor, dense: Tensor | None) -> Tensor:
        return graph(of_model.features(ids, dense))

    ids, dense = batch.ids.to(device), None if batch.dense is None else batch.dense.to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
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
