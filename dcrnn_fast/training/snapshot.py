"""Everything that a training step depends on, as named tensors, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .tensors import load_tensors


def named_parameters(modules: Mapping[str, nn.Module]) -> Iterable[tuple[str, nn.Parameter]]:
    """Parameters of several modules, each name led by its module's."""
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters():
            yield f"{prefix}.{name}", parameter


def capture(modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, device: torch.device) -> dict[str, Tensor]:
    """Weights, the optimiser's moments and step counts under their parameters' names, and the states of the random generators."""
    tensors = {f"{prefix}.{name}": value for prefix, module in modules.items() for name, value in module.state_dict().items()}
    for name, parameter in named_parameters(modules):
        for key, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{name}.{key}"] = torch.as_tensor(value)
    tensors["rng.cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng.device"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(
    tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, device: torch.device, source: Path
) -> None:
    """Undo :func:`capture`. Raises :class:`CheckpointError` if the tensors belong to another model."""
    for prefix, module in modules.items():
        load_tensors(module, select(tensors, f"{prefix}."), source)
    names = {id(parameter): name for name, parameter in named_parameters(modules)}
    groups = optimiser.state_dict()["param_groups"]
    ordered = [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]
    shapes = {name: parameter.shape for name, parameter in named_parameters(modules)}
    state = {index: select(tensors, f"optimiser.{name}.") for index, name in enumerate(ordered)}
    for name, values in zip(ordered, state.values(), strict=True):
        expected = {"step": torch.Size(), "exp_avg": shapes[name], "exp_avg_sq": shapes[name]}
        if values and {key: value.shape for key, value in values.items()} != expected:
            raise CheckpointError(f"{source} belongs to another optimiser: {name} has not AdamW's moments; start a new run")
    optimiser.load_state_dict({"state": {index: values for index, values in state.items() if values}, "param_groups": groups})
    try:
        torch.set_rng_state(_generator_state(tensors, "rng.cpu", source))
        if device.type == "cuda":
            torch.cuda.set_rng_state(_generator_state(tensors, "rng.device", source), device)
    except CheckpointError:
        raise
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{source} holds no state of a random generator ({error}); start a new run") from error


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _generator_state(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{source} lacks {name}: the run was started on another kind of device; resume it there")
    return tensors[name]
