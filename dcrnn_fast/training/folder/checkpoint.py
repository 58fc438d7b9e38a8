"""Checkpoints that are whole or absent, and safe to load: safetensors, nothing is unpickled.

``checkpoints/step-00001234.safetensors`` holds every tensor, and in its metadata everything else, as JSON, and a digest over both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import CheckpointError, shown
from .run_files import run_folder_errors
from .tensors import read_sealed, write_sealed

FORMAT, KEY = 2, "dcrnn_fast_checkpoint"
KEEP = 2
_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class Checkpoint(NamedTuple):
    """The contents of a checkpoint: named tensors on the CPU, and JSON values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_files(root: Path) -> list[Path]:
    """The checkpoints below ``root``, oldest first."""
    if not root.is_dir():
        return []
    named = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def save_checkpoint(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint and delete all but the newest two. Only one process at a time may do so.

    Raises :class:`dcrnn_fast.errors.RunFolderError` when the disk refuses. Earlier checkpoints then stay as they were, and nothing
    half-written is left.
    """
    file = root / f"step-{step:08d}.safetensors"
    with run_folder_errors(file):
        root.mkdir(parents=True, exist_ok=True)
        write_sealed(file, tensors, {"format": FORMAT, "values": state}, KEY)
        for old in checkpoint_files(root)[:-KEEP]:
            old.unlink()
    return file


def load_checkpoint(file: Path) -> Checkpoint:
    """Read one checkpoint and verify its digest. Raises :class:`CheckpointError` that names the damaged file and what to do."""
    remedy = _remedy(file)
    tensors, about, _ = read_sealed(file, KEY, f"is no checkpoint; {remedy}", remedy)
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{file} has format {shown(about.get('format'))}, this version reads format {FORMAT}; start a new run")
    return Checkpoint({name: value.clone() for name, value in tensors.items()}, about["values"])  # the file may be deleted meanwhile


def _remedy(file: Path) -> str:
    files = checkpoint_files(file.parent)
    if earlier := files[: files.index(file)] if file in files else []:
        return f"delete it and use --resume again to fall back to {earlier[-1].name}"
    if file.parent.with_name("metrics.json").exists():
        return "the run is finished and has no earlier checkpoint: restore this one, or train in another folder"
    return "delete it and use --resume again to start from the beginning (there is no earlier checkpoint)"
