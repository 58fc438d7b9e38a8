"""Checkpoints that are whole or absent, and safe to load: safetensors and JSON, nothing is unpickled.

``checkpoints/step-00001234/`` holds ``tensors.safetensors`` (every tensor) and ``state.json`` (everything else, and a SHA-256 over
both). The folder is written under a temporary name beside, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training.files import run_folder_errors, sync_folder, write_synced

FORMAT = 1
KEEP = 2
_NAME = re.compile(r"step-(\d{8,})")


class Checkpoint(NamedTuple):
    """What a checkpoint holds: named tensors on the CPU, and JSON values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_folders(root: Path) -> list[Path]:
    """The complete checkpoints below ``root``, oldest first."""
    if not root.is_dir():
        return []
    named = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def save_checkpoint(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint and delete all but the newest two.

    Raises :class:`dcrnn_fast.errors.RunFolderError` when the disk refuses; earlier checkpoints are then as they were and nothing
    half-written is left.
    """
    final = root / f"step-{step:08d}"
    beside, retired = root / f".{final.name}.{os.getpid()}.tmp", _hidden(final)
    with run_folder_errors(final):
        root.mkdir(parents=True, exist_ok=True)
        try:
            beside.mkdir()
            packed = pack_tensors(tensors)
            write_synced(beside / "tensors.safetensors", packed)
            write_synced(beside / "state.json", _sealed(state, packed))
            sync_folder(beside)
            if final.exists():
                os.replace(final, retired)
            os.replace(beside, final)
            sync_folder(root)
        except BaseException:
            if retired.exists() and not final.exists():
                os.replace(retired, final)
            shutil.rmtree(beside, ignore_errors=True)
            raise
        # A folder is hidden before it is emptied: a process killed in between must not leave half a checkpoint under a checkpoint's name.
        if retired.exists():
            shutil.rmtree(retired)
        for old in checkpoint_folders(root)[:-KEEP]:
            os.replace(old, _hidden(old))
            shutil.rmtree(_hidden(old))
    return final


def remove_leftovers(root: Path) -> None:
    """Delete what a killed process left half-written or half-deleted."""
    for beside in root.glob(".step-*.tmp"):
        shutil.rmtree(beside, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint and verify its digest.

    Raises :class:`CheckpointError` naming the damaged file and the remedy.
    """
    state_file, tensor_file = folder / "state.json", folder / "tensors.safetensors"
    try:
        state = json.loads(state_file.read_text(encoding="utf-8"))
        sealed = state["tensors"]
        size, sha256 = sealed["bytes"], sealed["sha256"]
        intact = state.pop("digest", None) == _digest(state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, state_file, f"cannot be read ({error})") from error
    if not intact:
        raise _damaged(folder, state_file, "was changed after it was written: its digest does not match")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{state_file} has format {state['format']}, this version reads format {FORMAT}; start a new run")
    try:
        packed = tensor_file.read_bytes()
    except OSError as error:
        raise _damaged(folder, tensor_file, f"cannot be read ({error.strerror})") from error
    if len(packed) != size:
        raise _damaged(folder, tensor_file, f"is truncated or extended: {len(packed)} bytes, expected {size}")
    if hashlib.sha256(packed).hexdigest() != sha256:
        raise _damaged(folder, tensor_file, "was changed after it was written: its digest does not match")
    return Checkpoint(safetensors.torch.load(packed), state["values"])


def pack_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Serialise named tensors. Each is copied to the CPU, so aliases and strides do not matter."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(copies, metadata)


def load_tensors(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy named tensors into a module of the very same parameters.

    Raises :class:`CheckpointError` naming ``source``, the first parameters that do not fit, and both shapes; the module is then unchanged.
    """
    own = module.state_dict()
    problems = [f"{name} is missing in the file" for name in own if name not in tensors]
    problems += [f"{name} is unknown to the model" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {list(tensors[name].shape)} in the file and {list(value.shape)} in the model"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source} belongs to another model: {'; '.join(problems[:3])}{more}; use the configuration and data that it was trained with"
        )
    module.load_state_dict(dict(tensors))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises :class:`CheckpointError` naming the file and the remedy."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; go on with --resume to write it, or name another run folder") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); restore it, or go on with --resume to write it again"
        ) from error


def tensor_digest(tensors: Mapping[str, Tensor], values: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors and over JSON values, whatever the order of the names."""
    digest = hashlib.sha256(canonical_json(values))
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(value.dtype), list(value.shape)]))
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sealed(values: Mapping[str, Any], packed: bytes) -> bytes:
    state = {"format": FORMAT, "values": values, "tensors": {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}}
    return (json.dumps(state | {"digest": _digest(state)}, indent=1, allow_nan=False) + "\n").encode()


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(state)).hexdigest()


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp")


def _damaged(folder: Path, file: Path, what: str) -> CheckpointError:
    folders = checkpoint_folders(folder.parent)
    earlier = folders[: folders.index(folder)] if folder in folders else []
    then = f"fall back to {earlier[-1].name}" if earlier else "start from the beginning (there is no earlier checkpoint)"
    return CheckpointError(f"checkpoint {file} {what}; delete the folder {folder} and use --resume again to {then}")
