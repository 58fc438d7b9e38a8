"""A training step as a CUDA graph: what it launches on a GPU is recorded once, and launched again as one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...data import Batch
from ...errors import ConfigError
from ...support.cuda_graph import CudaGraphs
from ..config import RunConfig
from ..device import each, on_device, pinned
from ..ranks.ranks import Ranks
from .optim import Optimisers

FIRST_STEPS = 3
"""Steps that are not recorded: they measure backends, compile kernels, and make what the optimisers keep."""


def recorder_for(config: RunConfig, device: torch.device, ranks: Ranks) -> CudaGraphs | None:
    """What records this run's steps, or None where each step launches its kernels one by one.

    So it is on a CPU; with several ranks, which meet in a step; with micro-batches, whose random numbers follow from the step; and with
    scenarios, whose rows the CPU has to count.
    """
    several = ranks.count > 1 or config.optimiser.micro_batches > 1
    if device.type != "cuda" or not config.cuda_graph or several or config.model.scenario is not None:
        return None
    return CudaGraphs(device)


class RepeatedStep:
    """The work of a training step: launched kernel by kernel at first, and for a batch of another size; else by what was recorded.

    Both ways are to give the same bits: the kernels are the same, and a graph's random numbers go on from where the generator is.

    Args:
        work: takes a batch on the device and returns its number of rows. It reads nothing from the device, and what differs between steps
            stands in tensors: the batch, the optimisers' rates and counts of steps.
        rows: of a batch that is recorded.
        recorder: :class:`.cuda_graph.CudaGraphs`, or what records on a CPU in a test.
    """

    def __init__(self, work: Callable[[Batch], int], optimiser: Optimisers, rows: int, device: torch.device, recorder: CudaGraphs) -> None:
        self._work, self._optimiser, self._rows, self._device, self._recorder = work, optimiser, rows, device, recorder
        self._still_unrecorded = FIRST_STEPS
        self._batch: Batch | None = None
        self._launch: Callable[[], None] | None = None

    def __call__(self, batch: Batch) -> int:
        """Do the work with a batch on the CPU. Raises :class:`ConfigError` if it cannot be recorded."""
        if self._still_unrecorded or len(batch.ids) != self._rows:
            self._still_unrecorded -= len(batch.ids) == self._rows
            with self._recorder.in_order():
                return self._work(on_device(batch, self._device))
        if self._batch is None:
            self._batch = each(batch, lambda part: torch.empty_like(part, device=self._device))
        for place, part in zip(self._batch, batch, strict=True):
            if place is not None and part is not None:
                place.copy_(pinned(part, self._device), non_blocking=True)
        self._launch = self._launch or self._recorded(self._batch)
        self._launch()
        for parameter, gradient in self._gradients:  # of the graph: a step by itself has put others there
            parameter.grad = gradient
        return self._rows

    def _recorded(self, batch: Batch) -> Callable[[], None]:
        try:
            with self._optimiser.capturable():
                launch = self._recorder.record(lambda: self._work(batch))
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]  # the message of CUDA goes on with advice
            raise ConfigError(f"cuda_graph is true, but the training step cannot be recorded: {reason}; set cuda_graph: false") from error
        parameters = (parameter for group in self._optimiser.param_groups for parameter in group["params"])
        self._gradients = [(parameter, parameter.grad) for parameter in parameters]
        return launch
