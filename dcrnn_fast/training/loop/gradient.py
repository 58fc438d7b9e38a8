"""The loss of a batch, also with ``loss.cvr``, and its gradient over the rows of all ranks; on measured backends, and compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ...data import Batch, BlockLoader
from ...errors import ConfigError
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


class BatchGradient:
    """Computes the gradient of a batch whose rows the ranks divide.

    The model sees this rank's rows, the loss the conditional logits and labels of all rows on every rank: a mean over known labels is not
    the mean of the ranks' means. Its gradient reaches the weights through the rank's own rows, and the sum over the ranks is the gradient
    of one process. The gradient of a learned loss weighting is whole on every rank.

    ``forward`` computes the conditional logits of ``model`` in ``precision``, if the model itself does not.
    """

    def __init__(
        self,
        config: RunConfig,
        model: DCRNN,
        task_weight: nn.Module | Tensor | None,
        *,
        forward: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        precision: str,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.options, self.seed, self.negative_rate = config.loss, config.seed, config.negative_rate or 1.0
        self.model, self.task_weight = model, task_weight
        self.forward = forward or model.conditional_logits
        self.precision, self.device, self.ranks = precision, device, ranks

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, int]:
        """The loss over all ranks' rows of a batch on the device, a scalar, and their number. Parameters then have the loss's gradient."""
        ids, dense, labels, weight = batch
        self._seed(step)
        with autocast(self.precision, self.device):
            own = self.forward(ids, dense).float()
        weights = [] if weight is None or not self.options.sample_weight else [weight]
        z, labels, *weights = self.ranks.rows(own, labels, *weights)
        loss = self.loss(z, labels, weights[0] if weights else None)
        loss.backward()
        self.ranks.add_gradients(self.model.parameters())
        return loss.detach(), labels.shape[0]

    def loss(self, z: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """The model's loss from conditional logits z [B, T]; with ``loss.cvr: ipw``, plus the conditionals' losses.

        The propensity of a conditional is the model's own probability of the event before it; with a ``negative_rate``, of the log before
        it was sampled. Of a logit that is NaN it is any: the loss is NaN, and the trainer says that training diverged.
        """
        model, strict = self.model, self.options.strict_funnel
        loss = model.loss(model.event_logits(z), labels, sample_weight=weight, task_weight=self.task_weight, strict_funnel=strict)
        if self.options.cvr == "entire_space":
            return loss
        before = model.event_logits(unsampled_logits(z.detach(), self.negative_rate))[:, :-1]
        propensity = torch.nan_to_num(torch.sigmoid(before), nan=0.5)
        rate = self.negative_rate
        return loss + counterfactual_losses(z[:, 1:], labels, propensity, sample_weight=weight, negative_rate=rate).sum()

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


def compiled(model: DCRNN, batch: Batch, precision: str, device: torch.device) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``model.conditional_logits`` in training mode; everything after its ``features`` is one compiled graph.

    The lookups in the tables of ids stay as they are: their gradients, which may be sparse, are added up in a fixed order. The graph is
    made now, for the rows of a first batch, so that it is the same whenever a run starts or resumes. It changes no weight and no random
    number. Raises :class:`ConfigError` if it cannot be made here.
    """
    torch.compiler.reset()  # no graph of an earlier model in this process, made for another number of rows
    graph = torch.compile(model.conditional_outputs, dynamic=True, fullgraph=True)

    def forward(ids: Tensor, dense: Tensor | None) -> Tensor:
        return graph(model.features(ids, dense))

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
