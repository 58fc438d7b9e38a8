"""What turns the tasks' losses into steps: the weights of the losses, AdamW, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import dcrnn_fast

from ..errors import ConfigError
from .config import OptimiserConfig, RunConfig
from .snapshot import named_parameters

EMBEDDING = "model.embedding.weight"


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


def build_optimiser(config: RunConfig, modules: Mapping[str, nn.Module], device: torch.device) -> torch.optim.AdamW:
    """AdamW over all parameters, with PyTorch's fused kernel where there is one; biases and log variances do not decay.

    The table of the embeddings has its own peak learning rate and decay. A group's ``lr_scale`` multiplies :func:`learning_rate`.
    """
    options = config.optimiser
    embedding_decay = options.weight_decay if options.embedding_weight_decay is None else options.embedding_weight_decay
    embedding_lr = options.lr if options.embedding_lr is None else options.embedding_lr
    groups: dict[str, dict[str, Any]] = {
        "decayed": {"params": [], "weight_decay": options.weight_decay, "lr_scale": 1.0},
        "constant": {"params": [], "weight_decay": 0.0, "lr_scale": 1.0},
        "embedding": {"params": [], "weight_decay": embedding_decay, "lr_scale": embedding_lr / options.lr},
    }
    for name, parameter in named_parameters(modules):
        exempt = name.startswith("weighting.") or name.rsplit(".", 1)[-1].endswith("bias")
        groups["embedding" if name == EMBEDDING else "constant" if exempt else "decayed"]["params"].append(parameter)
    return torch.optim.AdamW([*groups.values()], lr=options.lr, fused=device.type in ("cpu", "cuda"))


def learning_rate(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Learning rate of ``step`` in [0, total_steps): warm-up, then constant or half a cosine down to ``final_lr_ratio * lr``.

    It depends on the step alone, so a resumed run needs no scheduler state.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    part = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    low = config.lr * config.final_lr_ratio
    return low + (config.lr - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
