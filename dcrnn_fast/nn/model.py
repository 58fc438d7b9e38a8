"""DCRNN, the whole model: its parts, and how a batch goes through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ops.backends import require
from ..sharing import Cell, Sharing, SharingPlan
from ..support import model_inputs
from ..support.checks import check_flag
from ..support.defaults import DENSE_BINS, DROPOUT, EMBEDDING_DIM, EMBEDDING_INIT_STD, RANK, SHARE_RATIO, STEPS, TOWER_DIMS
from ..support.model_inputs import SCENARIO_RATIO, Relation
from ..support.tensors import check_placement
from .features import Features, FirstOrder, Inputs, PiecewiseLinearEmbedding
from .inference import PreparedDCRNN
from .layers import CrossRNN, TaskLinear
from .losses import CALIBRATOR_WEIGHT, combine, expectation_calibrator, task_losses
from .relations import EventLogits
from .scenarios import ScenarioCrossRNN
from .towers import Towers


class DCRNN(nn.Module):
    """One model for click and consume, or any funnel of tasks (Zhou and Yu, 2023, arXiv 2310.11777).

    Only the paper's abstract could be read; the rest is our reading. :class:`dcrnn_fast.reference.DCRNN` is the same model, written to be
    read. A batch goes through four parts: ``features`` (embeddings and the first-order term), ``cross`` (the recurrence), ``towers``, and
    ``event_logits`` (the relation between tasks).

    Args:
        num_embeddings: how many ids each of the F categorical fields has, as a sequence or a mapping from field names. Ids start at 0.
        num_dense: N, the number of dense features.
        embedding_dim: E, the width of an embedding. The recurrence has D = (F + N) * E units.
        embedding_init_std: standard deviation of the initial embeddings.
        dense_bins: Q, the number of bins in which a dense feature's embedding is linear; ``features.dense_embedding.set_edges`` sets their
            edges. 0 projects all dense features to one embedding, D = (F + 1) * E.
        shared_embeddings: fields that use another field's embeddings, which has as many ids: {"last_item": "item"}. Without field names,
            positions as text.
        pooled: fields with several values: {"tags": {"columns": ["tags[0]", "tags[1]"], "pooling": "mean"}}. The columns are consecutive
            names in ``num_embeddings`` with one embedding; "mean" or "sum" pools it. Id 0 is not a value. ids are then [B, C], for C
            columns, and F counts each such field once.
        sparse: give the tables of ids sparse gradients, for :class:`dcrnn_fast.RowWiseAdagrad` or ``torch.optim.SparseAdam``.
        first_order: add to the logits a weight for each id and task, and a weight for each number and task.
        first_order_only: fields that only the first-order term reads, such as the position at which an item was shown. Their embedding is
            zero.
        tasks: task names in funnel order.
        steps: L, how often the cross cell is applied.
        cell: "gated", or "cross" (no gate).
        tied: True for the same weights at all steps (an RNN), False for one set per step (a deep cross network).
        rank: r of the low-rank cell, in which a unit reads r projections of the state; None for the full cell.
        sharing: "rows" (tasks share parameters) or "trunk" (tasks share computation too).
        share_ratio: fraction of the units that tasks share, in [0, 1]: 1 is hard sharing, 0 is none.
        scenario: with ``sharing="trunk"``, the field whose ids are scenarios (without field names, its position as text). Each scenario has
            a quarter of the units for itself, so ``share_ratio`` is at most 0.75. Rows with id 0 have no scenario. See
            :class:`dcrnn_fast.ScenarioCrossRNN`.
        tower_dims: widths of each task's hidden tower layers.
        dropout: probability in [0, 1) after every hidden tower layer.
        relation: "chain", "independent" or "transfer" between consecutive tasks.
        backend: "auto", or the name of the backend that computes the operators.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: an argument of a wrong type or outside its range; the message names it.
        BackendUnavailable: the named ``backend`` cannot run here.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN
        >>> model = DCRNN({"user": 100, "item": 50}, tasks=("click", "consume"))
        >>> ids, labels = torch.tensor([[7, 3], [99, 0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])  # [B, fields], [B, tasks]
        >>> model.loss(model(ids), labels).backward()
        >>> list(model.eval().predict(ids))
        ['click', 'consume', 'consume_given_click']
    """

    features_type: type[Features] = Features

    def __init__(
        self,
        num_embeddings: Sequence[int] | Mapping[str, int],
        *,
        num_dense: int = 0,
        embedding_dim: int = EMBEDDING_DIM,
        embedding_init_std: float = EMBEDDING_INIT_STD,
        dense_bins: int = DENSE_BINS,
        shared_embeddings: Mapping[str, str] | None = None,
        pooled: Mapping[str, Mapping[str, Any]] | None = None,
        sparse: bool = False,
        first_order: bool = True,
        first_order_only: Sequence[str] = (),
        tasks: Sequence[str] = ("click", "consume"),
        steps: int = STEPS,
        cell: Cell = "gated",
        tied: bool = True,
        rank: int | None = RANK,
        sharing: Sharing = "rows",
        share_ratio: float = SHARE_RATIO,
        tower_dims: Sequence[int] = TOWER_DIMS,
        dropout: float = DROPOUT,
        relation: Relation = "chain",
        scenario: str | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require(backend)
        check_placement(device, dtype)
        self.field_names, self.num_embeddings = model_inputs.check_features(
            num_embeddings, num_dense, embedding_dim, embedding_init_std, dense_bins
        )
        self.shared_embeddings = model_inputs.check_shared_embeddings(shared_embeddings, self.field_names, self.num_embeddings)
        self.pooled = model_inputs.check_pooled(pooled, self.field_names, self.shared_embeddings)
        check_flag("sparse", sparse)
        check_flag("first_order", first_order)
        first_order_only = model_inputs.check_first_order_only(
            first_order_only, self.field_names, self.shared_embeddings, self.pooled, first_order=first_order
        )
        self.tasks, self.conditionals = model_inputs.check_tasks(tasks)
        tower_dims = model_inputs.check_towers(tower_dims, dropout, relation)
        self.scenario_column = model_inputs.check_scenario_field(scenario, share_ratio, sharing, self.field_names, self.pooled)
        self.num_dense, self.relation, self.backend, self.scenario = int(num_dense), relation, backend, scenario

        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = self.features_type(
            self.field_names, self.num_embeddings, len(self.tasks), num_dense=self.num_dense, embedding_dim=int(embedding_dim),
            embedding_init_std=float(embedding_init_std), dense_bins=int(dense_bins), shared_embeddings=self.shared_embeddings,
            pooled=self.pooled, scenario_column=self.scenario_column, sparse=sparse, first_order=first_order,
            first_order_only=first_order_only, **place,
        )  # fmt: skip
        scenarios = 0 if self.scenario_column is None else self.num_embeddings[self.scenario_column] - 1
        self.plan = SharingPlan.from_ratio(
            sharing, len(self.tasks), self.features.dim, share_ratio, steps=steps, cell=cell, tied=tied, rank=rank,
            num_scenarios=scenarios, scenario_ratio=0.0 if scenario is None else SCENARIO_RATIO,
        )  # fmt: skip
        self.cross = (CrossRNN if scenario is None else ScenarioCrossRNN)(self.plan, backend=backend, **place)
        widths = [self.features.dim, *tower_dims]
        self.towers = Towers(widths, len(self.tasks), dropout=float(dropout), transfer=relation == "transfer", **place)
        self.event_logits = EventLogits(self.tasks, self.conditionals, relation)

    def reset_parameters(self) -> None:
        """Draw new parameters. A model built on the meta device needs this after ``to_empty``, unless it loads a state_dict."""
        for module in self.modules():
            if isinstance(module, (Features, FirstOrder, PiecewiseLinearEmbedding, CrossRNN, TaskLinear, nn.Linear)):
                module.reset_parameters()

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def negative_rate(self) -> float:
        """r in (0, 1]: the part of the rows without the first event that the training log kept. 1 by default.

        With r < 1, :meth:`predict` gives the probabilities of the full log. Logits and loss stay those of the sampled rows.

        Raises:
            TypeError, ValueError: another number, or r < 1 with several tasks that are not a chain.
        """
        return self.event_logits.negative_rate

    @negative_rate.setter
    def negative_rate(self, rate: float) -> None:
        model_inputs.check_negative_rate(rate, len(self.tasks), self.relation)
        self.event_logits.negative_rate = float(rate)

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T] of each task's event over all impressions.

        Args:
            ids: int64 [B, F], column f in [0, num_embeddings[f]).
            dense: finite floats [B, N], or None without dense features.

        Raises:
            IndexError: an id outside its field's range.
            TypeError, ValueError: another dtype, shape or number.
        """
        return cast(Tensor, self.event_logits(self.conditional_logits(ids, dense)))

    def conditional_logits(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T] before the relation: under "chain", each event given the one before. Arguments and errors as in :meth:`forward`."""
        return self.conditional_outputs(self.features(ids, dense))

    def conditional_outputs(self, inputs: Inputs) -> Tensor:
        """The same from what ``features`` returns: what ``torch.compile`` can take as one graph."""
        x0, first_order, scenario = inputs
        states = self.cross(x0) if scenario is None else self.cross(x0, scenario)
        return cast(Tensor, self.towers(states, first_order))

    @torch.no_grad()
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] in float32 by task name, corrected by :attr:`negative_rate`. Arguments and errors as in :meth:`forward`.

        Under "chain" also those of every later task given the one before, such as "consume_given_click". Call ``eval()`` first, or dropout
        is active.
        """
        return self.event_logits.probabilities(self.conditional_logits(ids, dense))

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        sample_weight: Tensor | None = None,
        task_weight: Sequence[float] | Tensor | nn.Module | None = None,
        strict_funnel: bool = True,
    ) -> Tensor:
        """The training loss, a scalar: each task's cross entropy over its known labels, plus AITM's calibrator under "transfer".

        Args:
            logits: [B, T] from :meth:`forward`. The loss is in float32 (float64 for float64 logits).
            labels: floating [B, T] in [0, 1]; NaN marks an unknown label.
            sample_weight: [B], finite and at least 0.
            task_weight: T fixed weights, or a module from losses [T] to a scalar such as ``UncertaintyWeighting``; None adds the losses up.
            strict_funnel: under "chain", refuse a row with a later event but not the earlier one.

        Raises:
            TypeError, ValueError: a wrong dtype, shape or range, an empty batch, or a broken funnel.
        """
        model_inputs.check_labels(logits, labels, self.tasks, funnel=strict_funnel and self.relation == "chain")
        loss = combine(task_losses(logits, labels, sample_weight), task_weight)
        if self.relation == "transfer":
            loss = loss + CALIBRATOR_WEIGHT * expectation_calibrator(logits, sample_weight)
        return loss

    def prepare_inference(self) -> PreparedDCRNN:
        """Return a frozen, inference-only copy, which is faster. Prepare again after the weights change.

        On a GPU it records CUDA graphs, unless the environment has DCRNN_FAST_CUDA_GRAPHS=0. Raises RuntimeError if it cannot.
        """
        return PreparedDCRNN(self)
