"""How a training step runs on its device: on the backends that were measured, as a compiled graph, and as a CUDA graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...data import Batch, BlockLoader, PackedDataset
from ...errors import ConfigError
from ...nn.features import Inputs
from ...ops import auto
from ...ops.backends import requested
from ...support.cuda_graph import CudaGraphs
from ..config import RunConfig
from ..device import autocast, each, on_device, pinned
from ..evaluate.predict import BATCH
from ..ranks import Ranks
from .optim import Optimisers
from .progress import Report

FIRST_STEPS = 3
"""Steps that are not recorded: they measure backends, compile kernels, and make what the optimisers keep."""


def measured_backends(
    config: RunConfig, model: nn.Module, loader: BlockLoader, dataset: PackedDataset, precision: str, device: torch.device, report: Report
) -> str:
    """Let ``auto`` measure what training steps and evaluations need, and return what it takes: a graph that is traced cannot measure.

    ``loader`` has the batches of the steps. "" where ``auto`` does not choose. The model's gradients and random states stay as they are.
    """
    if device.type not in auto.DEVICES or requested(config.backend) != "auto":
        return ""
    before = set(auto.known)
    model.eval()  # no dropout: the sizes are the same, and no random number is drawn
    try:
        with autocast(precision, device):
            for inputs in _first_and_last(loader, device):
                _measure(model, inputs, (True, False))
        for name in ("valid", "test"):  # in float32
            for inputs in _first_and_last(BlockLoader(dataset.split(name), BATCH), device):
                _measure(model, inputs, (False,))
    except (IndexError, TypeError, ValueError):  # the first step says what is wrong with the batch
        return ""
    finally:
        model.train()
    choices = [choice for key, choice in auto.known.items() if key not in before] or list(auto.known.values())
    taken = sorted(Counter(choice.backend for choice in choices).items())
    shares = [f"{name} for {count} size{'s' * (count != 1)}" for name, count in taken]
    report.note(f"auto takes {', '.join(shares)}")
    return f"auto ({', '.join(name for name, _ in taken)})"


def _measure(model: nn.Module, inputs: list[torch.Tensor], gradients: tuple[bool, ...]) -> None:
    """Call a model so that each operator meets its size. A first call without values to compare measures nothing, which is no harm."""
    for needed in gradients:
        with torch.set_grad_enabled(needed):
            model(*inputs)


def _first_and_last(loader: BlockLoader, device: torch.device) -> list[list[torch.Tensor]]:
    """What a model is called with for the first batch and, if the last one is shorter, for so many of its rows; as many on every rank."""
    batch, rows_left = next(loader.batches()), len(loader.split) % loader.batch_size
    inputs = [part.to(device) for part in (batch.ids, batch.dense) if part is not None]
    return [inputs, [part[: rows_left // loader.shards] for part in inputs]] if rows_left else [inputs]


def compiled(
    model: nn.Module, batch: Batch, precision: str, device: torch.device, *, without_gradients: bool = False
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``model.forward`` of a DCRNN or its objective in training mode; everything after its ``features`` is one compiled graph.

    The lookups in the tables of ids stay as they are: they check ids and dense values, and their gradients, which may be sparse, are added
    up in a fixed order. The graph is made now, for the rows of a first batch, so that it is the same whenever a run starts or resumes;
    ``without_gradients`` makes the graph of a forward without gradients too. It changes no weight and no random number. Raises
    :class:`ConfigError` if it cannot be made here.
    """
    torch.compiler.reset()  # no graph of an earlier model in this process, made for another number of rows
    of_model: Any = model
    graph = torch.compile(lambda *inputs: of_model.outputs(Inputs(*inputs)), dynamic=True, fullgraph=True)

    def forward(ids: Tensor, dense: Tensor | None) -> Tensor:
        return graph(*of_model.features(ids, dense))

    ids, dense = batch.ids.to(device), None if batch.dense is None else batch.dense.to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            of_model.features(ids, dense)
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
            said = f"cuda_graph is true, but the training step cannot be recorded: {reason}; set cuda_graph: false, in a new process"
            raise ConfigError(said) from error
        parameters = (parameter for group in self._optimiser.param_groups for parameter in group["params"])
        self._gradients = [(parameter, parameter.grad) for parameter in parameters]
        return launch
