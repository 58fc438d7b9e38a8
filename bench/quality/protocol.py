"""One training run, the same for every model.

AdamW with warm-up and half a cosine, batches of our loader, several evaluations an epoch. The weights with the lowest mean log loss of the
tasks on the validation rows are kept, and the run ends once ``patience`` evaluations have passed without a better one. Nothing here reads
test rows.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dcrnn_fast import UncertaintyWeighting
from dcrnn_fast.data import Batch, BlockLoader, PackedDataset, PackedSplit
from dcrnn_fast.data.inspect.base_rates import base_rates
from dcrnn_fast.nn.features import PiecewiseLinearEmbedding
from dcrnn_fast.nn.losses import task_losses
from dcrnn_fast.training import load_config, load_model, train
from dcrnn_fast.training.config import OptimiserConfig
from dcrnn_fast.training.evaluate.metrics import mean_over_tasks, task_metrics, with_constant
from dcrnn_fast.training.loop.optim import learning_rate
from dcrnn_fast.training.loop.start import OOVDropout, dense_edges
from dcrnn_fast.training.loop.state import EarlyStopping

from .data_sets import one_task
from .models import MODELS, SHIPPED, TRAINED
from .networks import SIZES, Setting, widths
from .trees import KINDS, Trees

EVALUATION_BATCH = 8192


@dataclass(frozen=True)
class Protocol:
    """What all models have in common and no trial chooses."""

    batch_size: int = 512
    evaluations: int = 4
    """An epoch."""
    patience: int = 8
    """Evaluations."""
    warmup_steps: int = 50
    final_lr_ratio: float = 0.05
    finalists: int = 3
    """The best trials, which train again with two more seeds; the mean of the three runs chooses."""
    thin: int = 1
    """Every n-th row takes part."""
    max_steps: int | None = None
    max_rounds: int = 500
    """Of the trees."""


class Fitted(NamedTuple):
    """A trained model. ``history`` has the validation log loss after each evaluated step; ``logits`` gives [N, T] of a split."""

    logits: Callable[[PackedSplit], np.ndarray]
    parameters: int | None
    history: list[tuple[int, float]]
    seconds: float


def parameter_groups(modules: dict[str, nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: biases, the scales of batch normalisation and a learnt weighting do not decay."""
    groups: list[list[nn.Parameter]] = [[], []]
    for name, parameter in ((f"{prefix}.{name}", p) for prefix, module in modules.items() for name, p in module.named_parameters()):
        groups[name.endswith("bias") or parameter.dim() < 2].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def start_embeddings(model: nn.Module, deviation: float, dense: np.ndarray | None) -> None:
    """Every embedding starts normal with this standard deviation; every numeric one gets the edges of the train rows' values."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
        elif isinstance(module, PiecewiseLinearEmbedding):
            module.set_edges(dense_edges(np.asarray(dense), module.weight.shape[1]))


@torch.no_grad()
def predicted(model: nn.Module, batches: list[Batch]) -> Tensor:
    """The logits [N, T] in float32. Leaves the model in evaluation mode."""
    model.eval()
    return torch.cat([model(batch.ids, batch.dense).float() for batch in batches])


def mean_log_loss(logits: Tensor, labels: Tensor) -> float:
    """The mean of the tasks' log losses; infinite where a logit is not finite."""
    value = float(task_losses(logits, labels).mean())
    return value if math.isfinite(value) else math.inf


def fit(name: str, dataset: PackedDataset, setting: Setting, *, seed: int, size: str, protocol: Protocol) -> Fitted:
    """Train the model ``name`` on the train rows and stop by the validation rows."""
    if name in (SHIPPED, TRAINED):
        return _by_the_trainer(dataset, setting, seed)
    if name in KINDS:
        trees = Trees(name, dataset, setting, seed, protocol.max_rounds)
        labels = torch.from_numpy(np.array(dataset.split("valid").labels))
        loss = mean_log_loss(torch.from_numpy(trees.logits(dataset.split("valid"))).float(), labels)
        return Fitted(trees.logits, None, [(max(trees.rounds), loss)], trees.seconds)
    if name == "single-task":
        return _apart([_network(name, one_task(dataset, t), setting, seed, size, protocol) for t in range(len(dataset.meta.tasks))])
    return _network(name, dataset, setting, seed, size, protocol)


def _network(name: str, dataset: PackedDataset, setting: Setting, seed: int, size: str, protocol: Protocol) -> Fitted:
    begin, build = time.perf_counter(), MODELS[name].build
    assert build is not None
    torch.manual_seed(seed)
    model: Any = build(dataset.meta, setting, SIZES[size])
    start_embeddings(model, setting["embedding_init_std"], dataset.split("train").dense)
    oov_dropout = OOVDropout(dataset, setting["oov_dropout"], torch.device("cpu"))
    modules: dict[str, nn.Module] = {"model": model}
    if setting["weighting"] == "uncertainty" and len(dataset.meta.tasks) > 1:
        modules["weighting"] = UncertaintyWeighting(len(dataset.meta.tasks))
    optimiser = torch.optim.AdamW(parameter_groups(modules, setting["weight_decay"]), lr=setting["lr"], fused=True)
    loader = BlockLoader(dataset.split("train"), protocol.batch_size, shuffle=True, seed=seed)
    total = len(loader) * setting["epochs"]
    total = total if protocol.max_steps is None else min(total, protocol.max_steps)
    every = max(1, min(len(loader), total) // protocol.evaluations)
    rates = OptimiserConfig(lr=setting["lr"], warmup_steps=protocol.warmup_steps, final_lr_ratio=protocol.final_lr_ratio)
    stopping, best = EarlyStopping(larger_is_better=False, patience=protocol.patience), model.state_dict()
    valid = list(BlockLoader(dataset.split("valid"), EVALUATION_BATCH).batches())
    labels, history = torch.cat([batch.labels for batch in valid]), []
    batches = (batch for epoch in range(setting["epochs"]) for batch in loader.batches(epoch))
    for step, batch in zip(range(total), batches, strict=False):
        if len(batch.labels) > 1:  # batch normalisation cannot train on a single row
            model.train()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(rates, step, total)
            optimiser.zero_grad(set_to_none=True)
            ids = oov_dropout(batch.ids)
            model.loss(model(ids, batch.dense), batch.labels, task_weight=modules.get("weighting")).backward()
            optimiser.step()
        if (step + 1) % every == 0 or step + 1 == total:
            history.append((step + 1, mean_log_loss(predicted(model, valid), labels)))
            if stopping.update(history[-1][1], step + 1):
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            if stopping.should_stop:
                break
    model.load_state_dict(best)

    return _fitted(model, history, begin)


def _fitted(model: nn.Module, history: list[tuple[int, float]], begin: float) -> Fitted:
    def logits(split: PackedSplit) -> np.ndarray:
        return predicted(model, list(BlockLoader(split, EVALUATION_BATCH).batches())).numpy()

    return Fitted(logits, sum(parameter.numel() for parameter in model.parameters()), history, time.perf_counter() - begin)


def _by_the_trainer(dataset: PackedDataset, setting: Setting, seed: int) -> Fitted:
    """The trainer with its defaults but for the setting. It reads test rows at its end, and gets the validation rows in their place."""
    begin = time.perf_counter()
    blind = dataclasses.replace(dataset, splits={**dataset.splits, "test": dataset.split("valid")})
    with tempfile.TemporaryDirectory() as folder:
        keys = {key: value for key, value in setting.items() if key != "width"}
        if "width" in setting:
            keys["model.tower_dims"] = list(widths(setting, SIZES["medium"]))
        config = load_config(None, {"data": dataset.meta.name, "seed": seed, "threads": 1, **keys})
        metrics = train(config, Path(folder) / "run", dataset=blind)
        model, _ = load_model(Path(folder) / "run")
    loss = mean_over_tasks(metrics["valid"], "log_loss", dataset.meta.tasks)
    steps, best = metrics["train"]["steps"], metrics["train"]["best_step"]
    history = [(best, math.inf if loss is None else loss)]
    return _fitted(model, history + [(steps, math.inf)] * (steps > best), begin)


def _apart(parts: list[Fitted]) -> Fitted:
    """Models of one task each as one: their logits side by side. The history holds the mean of their best losses alone."""
    steps = max(step for part in parts for step, _ in part.history)
    loss = float(np.mean([min(loss for _, loss in part.history) for part in parts]))
    return Fitted(
        lambda split: np.concatenate([part.logits(split) for part in parts], axis=1),
        sum(part.parameters or 0 for part in parts),
        [(steps, loss)],
        sum(part.seconds for part in parts),
    )


def metrics(dataset: PackedDataset, split: str, logits: np.ndarray) -> dict[str, dict[str, Any]]:
    """The metrics of every task on a split, with the constant's log loss. A row's order in ``logits`` is that of the split."""
    rows, tasks = dataset.split(split), dataset.meta.tasks
    probabilities = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))
    by_task = {task: probabilities[:, position] for position, task in enumerate(tasks)}
    group = None if rows.group is None else np.asarray(rows.group)
    found = task_metrics(by_task, np.asarray(rows.labels), tasks, funnel=False, group=group)
    return with_constant(found, base_rates(np.asarray(dataset.split("train").labels), tasks, funnel=False))


def constant_scores(dataset: PackedDataset) -> dict[str, dict[str, float]]:
    """By task, what the constant, the base rate of the train rows, has on the test rows."""
    rates = base_rates(np.asarray(dataset.split("train").labels), dataset.meta.tasks, funnel=False)
    rows = np.array([[rates[task] for task in dataset.meta.tasks]]).repeat(len(dataset.split("test")), axis=0)
    found = metrics(dataset, "test", np.log(rows) - np.log1p(-rows))
    return {task: {key: round(of_task[key], 9) for key in ("log_loss", "calibration")} for task, of_task in found.items()}


def score(fitted: Fitted, dataset: PackedDataset) -> dict[str, float | None]:
    """The means over the tasks on the validation rows, of which the log loss chooses; None where training diverged."""
    logits = fitted.logits(dataset.split("valid"))
    if not np.isfinite(logits).all() or not math.isfinite(min(loss for _, loss in fitted.history)):
        return {"log_loss": None, "auc": None}
    found = metrics(dataset, "valid", logits)
    return {name: mean_over_tasks(found, name, dataset.meta.tasks) for name in ("log_loss", "auc")}
