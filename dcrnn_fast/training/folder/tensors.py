"""Named tensors as bytes: a safetensors file, a module's parameters, and a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...data.encoder.run_folder import REMEDY
from ...errors import CheckpointError
from ...support import strict_json
from ...support.files import regular_file
from ...support.strict_json import canonical_json
from .run_files import write_file


def pack_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Serialise named tensors. What shares memory, has strides or is on a GPU is copied first; all else is read where it is."""
    values: dict[str, Tensor] = {}
    known = set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        memory = value.untyped_storage().data_ptr()
        values[name] = value.clone() if memory in known else value
        known.add(memory)
    return safetensors.torch.save(values, metadata)


def load_tensors(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy named tensors into a module of the same parameters.

    Raises :class:`CheckpointError` that names ``source``, the first parameters that do not fit, and both shapes or dtypes; the module
    then stays as it was.
    """
    check_tensors(module, tensors, source)
    module.load_state_dict(dict(tensors))


def check_tensors(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise :class:`CheckpointError` unless the tensors have the module's names, shapes and dtypes; both may be on the meta device."""
    own = module.state_dict()
    problems = [f"{name} is missing in the file" for name in own if name not in tensors]
    problems += [f"{name} is unknown to the model" for name in tensors if name not in own]
    for what, property_of in (("shape", lambda tensor: list(tensor.shape)), ("dtype", lambda tensor: tensor.dtype)):
        problems += [
            f"{name} has {what} {property_of(tensors[name])} in the file and {property_of(value)} in the model"
            for name, value in own.items()
            if name in tensors and property_of(tensors[name]) != property_of(value)
        ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source} belongs to another model: {'; '.join(problems[:3])}{more}; use the configuration and data that it was trained with"
        )


def all_finite(tensor: Tensor) -> bool:
    """Whether every value is finite: then the smallest and the largest are. It needs no memory of a large table's size."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def total(tensor: Tensor) -> float:
    """The sum in float64 of a contiguous tensor, some millions of values at a time, as PyTorch makes copies in float64."""
    return float(sum(block.sum(dtype=torch.float64) for block in tensor.view(-1).split(2**22)))


def read_safetensors(path: Path, remedy: str = REMEDY) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. The tensors are the file's memory, which another file may replace.

    Raises :class:`CheckpointError` that names the file and what to do.
    """
    try:
        with regular_file(path).open("rb"):  # safetensors does not find what may not be read
            pass
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; go on with --resume to write it, or name another run folder") from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; let this user read it") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); {remedy}") from error


def write_sealed(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], key: str) -> str:
    """Write tensors as safetensors; the metadata holds, under ``key``, JSON values and a digest over both, which is returned."""
    digest = tensor_digest(tensors, about)
    write_file(path, pack_tensors(tensors, {key: json.dumps({"about": about, "digest": digest})}))
    return digest


def read_sealed(path: Path, key: str, otherwise: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """What :func:`write_sealed` wrote under a key, and the digest.

    Raises :class:`CheckpointError`: a file without the key ``otherwise``, and a damaged or changed one has the remedy.
    """
    tensors, metadata = read_safetensors(path, remedy)
    try:
        sealed = strict_json.parse(metadata[key])
        about, digest = dict(sealed["about"]), sealed["digest"]
        intact = tensor_digest(tensors, about) == digest
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} {otherwise}") from error
    if not intact:
        raise CheckpointError(f"{path} was changed after it was written: its digest does not match; {remedy}")
    return tensors, about, digest


def tensor_digest(tensors: Mapping[str, Tensor], values: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors and over JSON values, whatever the order of the names."""
    digest = hashlib.sha256(canonical_json(values))
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(value.dtype), list(value.shape)]))
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
