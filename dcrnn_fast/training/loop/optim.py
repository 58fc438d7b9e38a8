"""Turns the tasks' losses into steps: the weights of the losses, the optimisers, and the rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import dcrnn_fast

from ...errors import ConfigError
from ...nn import features
from ...nn.row_wise_adagrad import each_row_once, on_gpu
from ..config import OptimiserConfig, RunConfig
from ..device import pinned

EMBEDDING, FIRST_ORDER = f"model.{features.EMBEDDING}", f"model.{features.FIRST_ORDER}"
SPARSE_LR, SPARSE_DECAY = 0.1, 0.0
"""The defaults of ``optimiser.embedding_lr`` and ``embedding_weight_decay`` with ``model.embedding: sparse``."""
PRIOR = 64.0
"""The steps that each row of sparse embeddings and of the first-order table counts as having had: the higher, the less rare ids move."""


class Optimisers:
    """Optimisers that step together, each with parameters of its own: what the trainer and its checkpoints need of one optimiser.

    On a GPU their learning rates stand in a tensor, which a recorded step reads anew.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        rates = torch.zeros(len(self.param_groups), device=self.parameters[0].device, dtype=torch.float32)
        self.rates = rates if on_gpu(rates) else None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, group by group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_rate(self, rate: float) -> None:
        """Let the next step have this learning rate, times each group's ``lr_scale``."""
        values: Iterable[Any] = [rate * group["lr_scale"] for group in self.param_groups]
        if self.rates is not None:
            self.rates.copy_(pinned(torch.tensor(values, dtype=torch.float32), self.rates.device), non_blocking=True)
            values = self.rates.unbind()
        for group, value in zip(self.param_groups, values, strict=True):
            group["lr"] = value

    @contextmanager
    def capturable(self) -> Iterator[None]:
        """The block in which a CUDA graph records a step. AdamW has the option ``capturable``; elsewhere it would warn of it."""
        groups = [group for group in self.param_groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        try:
            yield
        finally:
            for group in groups:
                group["capturable"] = False

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Update all parameters."""
        for part in self.parts:
            part.step()

    def state(self) -> dict[str, Tensor]:
        """What the optimisers know of each parameter, by ``PARAMETER.KEY``."""
        named = [pair for group in self.param_groups for pair in zip(group["param_names"], group["params"], strict=True)]
        states = {parameter: state for part in self.parts for parameter, state in part.state.items()}
        return {f"{name}.{key}": torch.as_tensor(value) for name, one in named for key, value in states.get(one, {}).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`. A parameter without a state starts anew."""
        states: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            parameter, _, key = name.rpartition(".")
            states.setdefault(parameter, {})[key] = value
        for part in self.parts:
            names = [name for group in part.param_groups for name in group["param_names"]]
            known = {at: states[name] for at, name in enumerate(names) if name in states}
            part.load_state_dict({"state": known, "param_groups": part.state_dict()["param_groups"]})


def build_weighting(config: RunConfig, tasks: tuple[str, ...], device: torch.device) -> nn.Module | Tensor | None:
    """The loss's ``task_weight``: fixed weights [T], a learnt weighting, or None (1 each)."""
    given = config.loss.task_weight
    if config.loss.weighting == "uncertainty":
        if given is not None:
            raise ConfigError("loss.task_weight is set, but loss.weighting is 'uncertainty', which learns the weights; remove one of them")
        return dcrnn_fast.UncertaintyWeighting(len(tasks)).to(device)
    if given is None:
        return None
    if len(given) != len(tasks):
        raise ConfigError(f"loss.task_weight has {len(given)} values, expected one for each of the {len(tasks)} tasks: {', '.join(tasks)}")
    return torch.tensor(given, device=device)


def build_optimiser(config: RunConfig, modules: nn.ModuleDict, device: torch.device) -> Optimisers:
    """AdamW with PyTorch's fused kernel where there is one, and row-wise Adagrad; biases and log variances do not decay.

    Row-wise Adagrad trains the table of the first-order term, which does not decay, and, with ``model.embedding: sparse``, that of the
    embeddings; both have their own peak learning rates. A group's ``lr_scale`` multiplies :func:`learning_rate`. ``modules`` has the
    ``model``, and perhaps a ``weighting`` of the losses.
    """
    options, sparse = config.optimiser, config.model.embedding == "sparse"
    usual_lr, usual_decay = (SPARSE_LR, SPARSE_DECAY) if sparse else (options.lr, options.weight_decay)
    embedding_lr = usual_lr if options.embedding_lr is None else options.embedding_lr
    embedding_decay = usual_decay if options.embedding_weight_decay is None else options.embedding_weight_decay

    def group(lr: float, decay: float) -> dict[str, Any]:
        return {"params": [], "weight_decay": decay, "lr_scale": lr / options.lr}

    decayed, constant = group(options.lr, options.weight_decay), group(options.lr, 0.0)
    embedding = group(embedding_lr, embedding_decay) | ({"prior": PRIOR} if sparse else {})
    own = {EMBEDDING: embedding, FIRST_ORDER: group(options.first_order_lr, 0.0) | {"prior": PRIOR}}
    for name, parameter in modules.named_parameters():
        exempt = name.startswith("weighting.") or name.rsplit(".", 1)[-1].endswith("bias")
        own.get(name, constant if exempt else decayed)["params"].append((name, parameter))
    tables = [table for name, table in own.items() if table["params"] and (sparse or name == FIRST_ORDER)]
    dense = [decayed, constant] if sparse else [decayed, constant, own[EMBEDDING]]
    adamw = torch.optim.AdamW(dense, lr=options.lr, fused=device.type in ("cpu", "cuda"))
    return Optimisers(adamw, dcrnn_fast.RowWiseAdagrad(tables, lr=options.lr)) if tables else Optimisers(adamw)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> None:
    """``torch.nn.utils.clip_grad_norm_`` for dense and sparse gradients. Of a sparse one it reads the listed rows alone."""
    values = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = _added_up(parameter.grad)
            values.append(parameter.grad._values())
        elif parameter.grad is not None:
            values.append(parameter.grad)
    with torch.no_grad():
        scale = (max_norm / (nn.utils.get_total_norm(values) + 1e-6)).clamp(max=1.0)
        for value in values:
            value.mul_(scale)


def _added_up(gradient: Tensor) -> Tensor:
    """A sparse gradient that lists each row once, with the sum of its values. On a GPU the last row may follow again, with zeros."""
    rows, values, own = each_row_once(gradient, wait=not on_gpu(gradient))
    values = values if own is None else values * own[:, None]
    return torch.sparse_coo_tensor(rows[None], values, gradient.shape, check_invariants=False, is_coalesced=own is None)


def learning_rate(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Learning rate of ``step`` in [0, total_steps): warm-up, then half a cosine down to ``final_lr_ratio * lr``.

    It depends on the step alone, so a resumed run needs no scheduler state.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    part = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    low = config.lr * config.final_lr_ratio
    return low + (config.lr - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
