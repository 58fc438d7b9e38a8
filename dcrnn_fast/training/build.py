"""From a configuration and a data set to a model and its optimiser; and from a weight file back to a model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import dcrnn_fast
from dcrnn_fast import backends
from dcrnn_fast.errors import CheckpointError, ConfigError
from dcrnn_fast.training.checkpoint import canonical_json, load_tensors, pack_tensors, read_safetensors, tensor_digest
from dcrnn_fast.training.config import ModelConfig, RunConfig
from dcrnn_fast.training.files import write_file
from dcrnn_fast.training.snapshot import named_parameters

if TYPE_CHECKING:
    from dcrnn_fast.data import PackedMeta


def select_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is the GPU if there is one. Raises :class:`ConfigError` if it cannot be used."""
    usable = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not usable or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device is {name!r}, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs; use device: cpu")
    return device


def select_backend(name: str, device: torch.device) -> str:
    """The backend that computes under that name. Raises :class:`ConfigError` if there is none, ``BackendUnavailable`` if it cannot run."""
    try:
        return backends.resolve(name, device=device)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def describe(config: RunConfig, meta: PackedMeta) -> dict[str, Any]:
    """What a weight file must say for :func:`load_model` to rebuild its model."""
    return {
        "model": config.model.model_dump(mode="json"),
        "relation": config.model.relation or meta.relation,
        "tasks": list(meta.tasks),
        "funnel": meta.funnel,
        "fields": [[name, size] for name, size in meta.fields.items()],
        "dense": list(meta.dense),
        "data": {"name": meta.name, "digest": meta.digest},
        "encoding": hashlib.sha256(canonical_json(encoding(meta))).hexdigest(),
    }


def encoding(meta: PackedMeta) -> dict[str, Any]:
    """What turned the table's columns into ids and dense values, as :func:`dcrnn_fast.data.prepare` takes it to encode another table."""
    return {"vocabulary": meta.vocabulary, "scaling": meta.scaling}


def build_model(about: Mapping[str, Any], *, device: torch.device, backend: str) -> nn.Module:
    """The DCRNN that ``about`` (see :func:`describe`) speaks of. Raises :class:`ConfigError` if the model refuses an argument."""
    try:
        options = ModelConfig.model_validate(about["model"]).model_dump() | {"relation": about["relation"]}
        return dcrnn_fast.DCRNN(
            dict(about["fields"]), num_dense=len(about["dense"]), tasks=tuple(about["tasks"]), backend=backend, device=device, **options
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the configuration's model section does not fit the data set {about['data']['name']}: {error}") from error


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
    """AdamW over all parameters, the fused kernel where PyTorch has it; biases and log variances do not decay."""
    decay: list[nn.Parameter] = []
    constant: list[nn.Parameter] = []
    for name, parameter in named_parameters(modules):
        exempt = name.startswith("weighting.") or name.rsplit(".", 1)[-1].endswith("bias")
        (constant if exempt else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": config.optimiser.weight_decay}, {"params": constant, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.optimiser.lr, fused=device.type in ("cpu", "cuda"))


def export_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a model's weights as safetensors, with what :func:`load_model` needs and a digest in the metadata."""
    sealed = {"about": about, "digest": tensor_digest(tensors, about)}
    write_file(path, pack_tensors(tensors, {"dcrnn_fast": json.dumps(sealed, sort_keys=True)}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description of a ``model.safetensors``.

    Raises :class:`CheckpointError` if the file is missing, damaged or tampered with.
    """
    tensors, metadata = read_safetensors(path)
    try:
        sealed = json.loads(metadata["dcrnn_fast"])
        about = sealed["about"]
        intact = tensor_digest(tensors, about) == sealed["digest"]
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} has no dcrnn_fast description; give the model.safetensors of a run folder") from error
    if not intact:
        raise CheckpointError(
            f"{path} was changed after it was written: its digest does not match; restore it, or go on with --resume to write it again"
        )
    return tensors, about


def read_encoding(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The :func:`encoding` that a run was trained with. Raises :class:`CheckpointError` if the file is missing or is not that one."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        intact = hashlib.sha256(canonical_json(stored)).hexdigest() == about["encoding"]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); restore it, or go on with --resume to write it again") from error
    if not intact:
        raise CheckpointError(
            f"{path} was changed after it was written: its digest does not match; restore it, or go on with --resume to write it again"
        )
    return stored


def load_model(path: str | Path, *, device: str | torch.device = "cpu", backend: str = "auto") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the model of a ``model.safetensors``; returns it in evaluation mode, and the file's description.

    Raises :class:`CheckpointError` if the file is missing, damaged, tampered with, or does not fit the model it describes.
    """
    path = Path(path)
    tensors, about = read_weights(path)
    model = build_model(about, device=torch.device(device), backend=backend)
    load_tensors(model, tensors, path)
    return model.eval(), about


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Deterministic algorithms and a fixed thread count, put back afterwards: sums over threads depend on how many there are."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(), torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_num_threads(before[2])
