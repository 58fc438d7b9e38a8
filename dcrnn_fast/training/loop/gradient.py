"""The loss of a batch, also with ``loss.cvr``, and its gradient over the rows of all ranks; on measured backends, and compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data import Batch, BlockLoader
from ...errors import ConfigError
from ...nn.features import Inputs
from ...nn.losses import counterfactual_losses
from ...nn.model import DCRNN
from ...nn.relations import unsampled_logits
from ...ops import auto_gpu
from ...ops.backends import requested
from ..config import RunConfig
from ..device import autocast
from ..evaluate.predict import BATCH
from ..ranks import Ranks
from .job import Job


class CounterfactualObjective(nn.Module):
    """The loss of a chain with ``loss.cvr: ipw``; to a :class:`BatchGradient` it is the model, with conditional logits [B, T]."""

    def __init__(self, config: RunConfig, model: DCRNN) -> None:
        super().__init__()
        self.negative_rate, self.model, self.features = config.negative_rate or 1.0, model, model.features

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The conditional logits, with the arguments and errors of the model."""
        return self.model.conditional_logits(ids, dense)

    def outputs(self, inputs: Inputs) -> Tensor:
        """The same, from what the model's features give."""
        return self.model.conditional_outputs(inputs)

    def loss(self, z: Tensor, labels: Tensor, *, sample_weight: Tensor | None = None, **options: Any) -> Tensor:
        """The model's loss with these options, plus the conditionals' losses.

        The propensity of a conditional is the model's own probability of the event before it; with a ``negative_rate``, of the log before
        it was sampled. Of a logit that is NaN it is any: the loss is NaN, and the trainer says that training diverged.
        """
        before = self.model.event_logits(unsampled_logits(z.detach(), self.negative_rate))[:, :-1]
        propensity = torch.nan_to_num(torch.sigmoid(before), nan=0.5)
        loss = self.model.loss(self.model.event_logits(z), labels, sample_weight=sample_weight, **options)
        about: dict[str, Any] = {"sample_weight": sample_weight, "negative_rate": self.negative_rate}
        return loss + counterfactual_losses(z[:, 1:], labels, propensity, **about).sum()


class BatchGradient:
    """Computes the gradient of a batch whose rows the ranks divide.

    The model sees this rank's rows, the loss the logits and labels of all rows on every rank: a mean over known labels is not the mean of
    the ranks' means. Its gradient reaches the weights through the rank's own rows, and the sum over the ranks is the gradient of one
    process. The gradient of a learned loss weighting is whole on every rank.

    ``model`` is a DCRNN or its objective, on ``device``; ``forward`` computes its logits in ``precision``, if the model itself does not.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        task_weight: nn.Module | Tensor | None,
        *,
        forward: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        precision: str,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.options, self.seed = config.loss, config.seed
        self.model, self.task_weight = model, task_weight
        self.forward = forward or model
        self.precision, self.device, self.ranks = precision, device, ranks

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, int]:
        """The loss over all ranks' rows of a batch on the device, a scalar, and their number. Parameters then have the loss's gradient."""
        ids, dense, labels, weight = batch
        self._seed(step)
        with autocast(self.precision, self.device):
            own_logits = self.forward(ids, dense).float()
        weights = [] if weight is None or not self.options.sample_weight else [weight]
        logits, labels, *weights = self.ranks.rows(own_logits, labels, *weights)
        options = {"task_weight": self.task_weight, "strict_funnel": self.options.strict_funnel}
        loss = self.model.loss(logits, labels, sample_weight=weights[0] if weights else None, **options)  # type: ignore[operator]
        loss.backward()
        self.ranks.add_gradients(self.model.parameters())
        return loss.detach(), labels.shape[0]

    def _seed(self, step: int) -> None:
        """Let several ranks' random numbers follow from the position and the rank, so that a run resumes on any number of ranks."""
        if self.ranks.count > 1:
            mixed = np.random.SeedSequence([self.seed, step, self.ranks.rank])
            torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))


def measured_backends(job: Job, model: nn.Module, loader: BlockLoader, precision: str) -> str:
    """Let ``auto`` measure what steps of the ``loader`` and evaluations need: a traced graph cannot. Returns what it takes.

    "" where ``auto`` does not choose. The model's gradients and random states stay as they are.
    """
    if job.device.type not in auto_gpu.DEVICES or requested(job.config.backend) != "auto":
        return ""
    before = set(auto_gpu.known)
    evaluated = [BlockLoader(rows, BATCH) for name in ("valid", "test") if (rows := job.dataset.splits.get(name))]
    calls = [(loader, precision, True), (loader, precision, False), *((one, "float32", False) for one in evaluated)]
    model.eval()  # no dropout: the sizes are the same, and no random number is drawn
    for batches, used, gradients in calls:
        with torch.set_grad_enabled(gradients), autocast(used, job.device):
            for inputs in _first_and_last(batches, job.device):
                model(*inputs)
    model.train()
    choices = [choice for key, choice in auto_gpu.known.items() if key not in before] or list(auto_gpu.known.values())
    taken = sorted(Counter(choice.backend for choice in choices).items())
    job.report.note(f"auto takes {', '.join(f'{name} for {count} size' + 's' * (count != 1) for name, count in taken)}")
    return f"auto ({', '.join(name for name, _ in taken)})"


def _first_and_last(loader: BlockLoader, device: torch.device) -> list[list[Tensor]]:
    """What a model is called with for the first batch and, if the last one is shorter, for so many of its rows; as many on every rank."""
    batch, rows_left = next(loader.batches()), len(loader.split) % loader.batch_size
    inputs = [part.to(device) for part in (batch.ids, batch.dense) if part is not None]
    return [inputs, [part[: rows_left // loader.shards] for part in inputs]] if rows_left else [inputs]


def compiled(model: nn.Module, batch: Batch, precision: str, device: torch.device) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``model.forward`` of a DCRNN or its objective in training mode; everything after its ``features`` is one compiled graph.

    The lookups in the tables of ids stay as they are: their gradients, which may be sparse, are added up in a fixed order. The graph is
    made now, for the rows of a first batch, so that it is the same whenever a run starts or resumes. It changes no weight and no random
    number. Raises :class:`ConfigError` if it cannot be made here.
    """
    torch.compiler.reset()  # no graph of an earlier model in this process, made for another number of rows
    of_model: Any = model
    graph = torch.compile(of_model.outputs, dynamic=True, fullgraph=True)

    def forward(ids: Tensor, dense: Tensor | None) -> Tensor:
        return graph(of_model.features(ids, dense))

    ids, dense = batch.ids.to(device), None if batch.dense is None else batch.dense.to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            with autocast(precision, device):
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
