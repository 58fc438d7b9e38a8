"""One training step on the device: the gradient of a batch, its clipping, and the optimisers; on a GPU as one recorded launch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...data import Batch
from ...errors import ConfigError
from ...support.cuda_graph import CudaGraphs
from ..device import each, on_device, pinned
from .gradient import BatchGradient
from .job import Job
from .optim import Optimisers, clip_gradients

FIRST_STEPS = 3
"""Steps that are not recorded: they measure backends, compile kernels, and make what the optimisers keep."""


def recorder_for(job: Job) -> CudaGraphs | None:
    """What records this run's steps, or None where each step launches its kernels one by one.

    So it is on a CPU; with several ranks, which meet in a step; and with scenarios, whose rows the CPU has to count.
    """
    config = job.config
    if job.device.type != "cuda" or not config.cuda_graph or job.ranks.count > 1 or config.model.scenario is not None:
        return None
    return CudaGraphs(job.device)


class TrainingStep:
    """Takes a batch on the CPU and updates all parameters.

    With a recorder, the first steps and a batch of another size than ``rows`` are launched kernel by kernel; all else by what was recorded.
    Both ways give the same bits: the kernels are the same, and a graph's random numbers go on from where the generator is. What differs
    between steps stands in tensors: the batch, the optimisers' rates and counts of steps.

    Args:
        gradient: of a batch on the device.
        optimiser: has the learning rates of the step.
        clip_norm: the largest norm of a gradient; None for any.
        recorder: :class:`.cuda_graph.CudaGraphs`, or what records on a CPU in a test; None: every step is launched kernel by kernel.
        rows: of a batch that is recorded.
    """

    def __init__(
        self, gradient: BatchGradient, optimiser: Optimisers, clip_norm: float | None, recorder: CudaGraphs | None, rows: int
    ) -> None:
        self.gradient, self.optimiser, self.clip_norm, self.device = gradient, optimiser, clip_norm, gradient.device
        self._losses, self._rows_of_losses = torch.zeros((), dtype=torch.float64, device=self.device), 0
        self._recorder, self._rows, self._still_unrecorded = recorder, rows, FIRST_STEPS
        self._launch: Callable[[], None] | None = None

    def __call__(self, batch: Batch, number: int, rate: float) -> int:
        """Do step ``number``, from 0, at this learning rate; returns the rows of all ranks.

        Raises :class:`ConfigError` if the step cannot be recorded.
        """
        self.optimiser.set_rate(rate)
        if self._recorder is None:
            rows = self.work(on_device(batch, self.device), number)
        elif self._still_unrecorded or len(batch.ids) != self._rows:
            self._still_unrecorded -= len(batch.ids) == self._rows
            with self._recorder.in_order():
                rows = self.work(on_device(batch, self.device), number)
        else:
            rows = self._rows
            self._launch_again(self._recorder, batch)
        self._rows_of_losses += rows
        return rows

    def work(self, batch: Batch, number: int) -> int:
        """What a step does on the device, with a batch that is there, from which it reads nothing."""
        self.optimiser.zero_grad()
        loss, rows = self.gradient(batch, number)
        if self.clip_norm is not None:
            clip_gradients(self.optimiser.parameters, self.clip_norm)
        self.optimiser.step()
        self._losses += loss.double() * rows
        return rows

    def take_losses(self) -> tuple[float, int]:
        """The sum of the rows' losses since the last call, and the number of rows. Waits for the steps that a GPU has not yet done."""
        total, rows = float(self._losses), self._rows_of_losses
        self._losses.zero_()
        self._rows_of_losses = 0
        return total, rows

    def _launch_again(self, recorder: CudaGraphs, batch: Batch) -> None:
        if self._launch is None:
            self._batch = each(batch, lambda part: torch.empty_like(part, device=self.device))
        for place, part in zip(self._batch, batch, strict=True):
            if place is not None and part is not None:
                place.copy_(pinned(part, self.device), non_blocking=True)
        self._launch = self._launch or self._recorded(recorder)
        self._launch()
        for parameter, gradient in self._gradients:  # of the graph: a step by itself has put others there
            parameter.grad = gradient

    def _recorded(self, recorder: CudaGraphs) -> Callable[[], None]:
        try:
            with self.optimiser.capturable():
                launch = recorder.record(lambda: self.work(self._batch, 0))
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]  # the message of CUDA goes on with advice
            said = f"cuda_graph is true, but the training step cannot be recorded: {reason}; set cuda_graph: false, in a new process"
            raise ConfigError(said) from error
        self._gradients = [(parameter, parameter.grad) for parameter in self.optimiser.parameters]
        return launch
