"""Everything that a training step depends on, as named tensors, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...nn.optim import RowWiseAdagrad
from ..folder.tensors import load_tensors, total
from .optimisers import Optimisers


def named_parameters(modules: Mapping[str, nn.Module]) -> Iterable[tuple[str, nn.Parameter]]:
    """Parameters of several modules, each name led by its module's."""
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters():
            yield f"{prefix}.{name}", parameter


def weight_sums(modules: Mapping[str, nn.Module], known: Mapping[str, float]) -> dict[str, float]:
    """The sum of each parameter in float64, or what is ``known`` of it: equal weights have equal sums, other weights hardly ever."""
    parameters = dict(named_parameters(modules))
    sums = {name: known[name] if name in known else total(value.detach()) for name, value in parameters.items()}
    return {f"the sum of {name}": value for name, value in sums.items()}


def keep(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy a module's tensors into ``weights`` on the CPU, in the memory that earlier ones have there."""
    for name, value in module.state_dict().items():
        if name in weights:
            weights[name].copy_(value)
        else:
            weights[name] = value.to("cpu", copy=True)


def capture(modules: Mapping[str, nn.Module], optimiser: Optimisers, device: torch.device) -> dict[str, Tensor]:
    """Weights, the optimisers' state under their parameters' names, and the states of the random generators."""
    tensors = {f"{prefix}.{name}": value for prefix, module in modules.items() for name, value in module.state_dict().items()}
    state = {parameter: values for part in optimiser.parts for parameter, values in part.state.items()}
    for name, parameter in named_parameters(modules):
        for key, value in state.get(parameter, {}).items():
            tensors[f"optimiser.{name}.{key}"] = torch.as_tensor(value)
    tensors["rng.cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng.device"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(
    tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimiser: Optimisers, device: torch.device, source: Path
) -> None:
    """Undo :func:`capture`. Raises :class:`CheckpointError` if the tensors belong to another model."""
    for prefix, module in modules.items():
        load_tensors(module, select(tensors, f"{prefix}."), source)
    names = {id(parameter): name for name, parameter in named_parameters(modules)}
    for part in optimiser.parts:
        _restore_optimiser(part, tensors, names, source)
    try:
        torch.set_rng_state(_generator_state(tensors, "rng.cpu", source))
        if device.type == "cuda":
            torch.cuda.set_rng_state(_generator_state(tensors, "rng.device", source), device)
    except CheckpointError:
        raise
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{source} holds no state of a random generator ({error}); start a new run") from error


def _restore_optimiser(part: torch.optim.Optimizer, tensors: Mapping[str, Tensor], names: Mapping[int, str], source: Path) -> None:
    state = {}
    parameters = (parameter for group in part.param_groups for parameter in group["params"])
    for index, parameter in enumerate(parameters):
        name, shape = names[id(parameter)], parameter.shape
        expected = {"sum": shape[:1]} if isinstance(part, RowWiseAdagrad) else {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
        values = select(tensors, f"optimiser.{name}.")
        if values and {key: value.shape for key, value in values.items()} != expected:
            raise CheckpointError(f"{source} belongs to another optimiser: {name} has not {type(part).__name__}'s state; start a new run")
        if values:
            state[index] = values
    part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _generator_state(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{source} lacks {name}: the run was started on another kind of device; resume it there")
    return tensors[name]
