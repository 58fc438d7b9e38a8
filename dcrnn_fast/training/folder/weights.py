"""``model.safetensors``: a model's weights with everything that rebuilds the model, and ``encoder.json``, which encodes tables for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dcrnn_fast

from ...data import PackedDataset
from ...data.inspect.base_rates import base_rates
from ...data.inspect.oov import id_shares
from ...errors import CheckpointError, ConfigError
from ...support import strict_json
from ...support.files import path_of
from ..config import ModelConfig, RunConfig
from ..device import select_backend, select_device
from .description import check_description
from .layout import RunFolder
from .run_files import write_file
from .tensors import check_tensors, load_tensors, pack_tensors, read_safetensors, tensor_digest


def describe(config: RunConfig, dataset: PackedDataset) -> dict[str, Any]:
    """The description in a weight file: :func:`load_model` rebuilds the model by it, and :func:`evaluate` compares its data with others."""
    meta, rows = dataset.meta, dataset.split("train")
    return {
        "model": config.model.model_dump(mode="json"),
        "relation": config.model.relation or meta.relation,
        "tasks": list(meta.tasks),
        "funnel": meta.funnel,
        "fields": [[name, size] for name, size in meta.fields.items()],
        "dense": list(meta.dense),
        "shared": dict(meta.shared),
        "pooled": dict(meta.pooled),
        "data": {"name": meta.name, "digest": meta.digest},
        "encoding": strict_json.json_digest(meta.encoding),
        "base_rates": base_rates(np.asarray(rows.labels), meta.tasks, funnel=meta.funnel),
        "id_shares": id_shares(rows, meta),
        "negative_rate": config.negative_rate or 1.0,
    }


def build_model(about: Mapping[str, Any], *, device: torch.device, backend: str) -> nn.Module:
    """The DCRNN of a description (see :func:`describe`). Raises :class:`ConfigError` if the model refuses an argument."""
    try:
        options = ModelConfig.model_validate(about["model"]).model_dump() | {"relation": about["relation"]}
        options["sparse"] = options.pop("embedding") == "sparse"
        return dcrnn_fast.DCRNN(
            dict(about["fields"]),
            num_dense=len(about["dense"]),
            tasks=tuple(about["tasks"]),
            shared_embeddings=about["shared"],
            pooled=about["pooled"],
            backend=backend,
            device=device,
            **options,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the configuration's model section does not fit the data set {about['data']['name']}: {error}") from error


def export_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write weights as safetensors; the metadata holds the description and a digest over both."""
    sealed = {"about": about, "digest": tensor_digest(tensors, about)}
    write_file(path, pack_tensors(tensors, {"dcrnn_fast": json.dumps(sealed, sort_keys=True)}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description of a ``model.safetensors``.

    Raises :class:`CheckpointError` if the file is missing, damaged or tampered with, or its description is none.
    """
    return read_sealed(path)[:2]


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """What :func:`read_weights` returns, and the digest over both. The file is opened once: another one may take its place meanwhile."""
    tensors, metadata = read_safetensors(path)
    try:
        sealed = strict_json.parse(metadata["dcrnn_fast"])
        about, digest = sealed["about"], sealed["digest"]
        intact = tensor_digest(tensors, about) == digest
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} has no dcrnn_fast description; give the model.safetensors of a run folder") from error
    if not intact:
        raise CheckpointError(
            f"{path} was changed after it was written: its digest does not match; restore it, or go on with --resume to write it again"
        )
    check_description(about, path)
    return tensors, about, digest


def load_model(path: str | Path, *, device: str | torch.device = "cpu", backend: str = "auto") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the model of a run from its ``model.safetensors``.

    Args:
        path: the file, or the run folder that holds it; nothing in it is unpickled.
        device: where the model's parameters go.
        backend: backend of the operators, see ``dcrnn-fast info``.

    Returns:
        The :class:`dcrnn_fast.DCRNN` in evaluation mode, and the file's description: ``tasks``, ``fields`` (each column's name and number
        of ids), ``dense`` (the dense columns' names), ``relation``, ``funnel``, ``model``, ``data``, ``encoding``, ``base_rates`` (the
        part of positive labels among the training rows, by task), ``id_shares`` (the parts of the training rows that are out of
        vocabulary and missing, by field), ``shared`` (by field with the embeddings of another: that field), ``pooled`` (by field with
        several values: its columns and its pooling) and ``negative_rate``, by which the model's ``predict`` is corrected.

    Raises:
        CheckpointError: the file is missing, damaged or tampered with, or does not fit the model that it describes. It takes little more
            memory than the file to find that out.
        ConfigError: ``device`` or ``backend`` names none.
        BackendUnavailable: the backend cannot run here.

    Example::

        model, about = load_model("runs/census/model.safetensors")
        probabilities = model.predict(ids)  # ids: int64 [B, len(about["fields"])]
    """
    path = path_of("path", path)
    return load_sealed(RunFolder(path).weights if path.is_dir() else path, device=device, backend=backend)[:2]


def load_sealed(path: Path, *, device: str | torch.device, backend: str) -> tuple[nn.Module, dict[str, Any], str]:
    """What :func:`load_model` returns of a weight file, and the digest over its content."""
    place = select_device(str(device))
    select_backend(backend, place)
    tensors, about, digest = read_sealed(path)
    try:
        # On the meta device a model takes no memory, whatever sizes the description asks for.
        check_tensors(build_model(about, device=torch.device("meta"), backend=backend), tensors, path)
    except ConfigError as error:
        raise CheckpointError(f"{path} describes no model: {error}; give the model.safetensors of a run folder") from error
    model = build_model(about, device=place, backend=backend)
    load_tensors(model, tensors, path)
    model.negative_rate = about["negative_rate"]
    return model.eval(), about, digest
