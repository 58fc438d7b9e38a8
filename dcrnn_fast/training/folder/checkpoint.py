"""What a run can go on from: files that are whole or absent, and safe to load, as safetensors hold nothing to unpickle.

``checkpoints/step-00001234.safetensors`` holds every tensor, and in its metadata everything else, as JSON, and a digest over both.
``optimiser.safetensors`` is for another run that goes on from a finished one: what its optimisers know, and how often and how lately ids
were read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import CheckpointError, shown
from ...nn.features import EMBEDDING, FIRST_ORDER
from .run_files import run_folder_errors
from .tensors import read_sealed, write_sealed

FORMAT, KEY, KNOWN_KEY = 2, "dcrnn_fast_checkpoint", "dcrnn_fast_optimiser"
KEEP = 2
READS, IDLE = "reads", "idle"
OF_FIRST_ORDER = ("first_order.curvature", "first_order.score", "first_order.variance")
"""How many train rows of this run and of those before it hold each id, int64 [rows of the table of ids]; how many runs in a row, this one
the last, held none, int32 [as many]; and the last three of :class:`..loop.first_order.Start`."""
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


def save_checkpoint(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
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


def load_checkpoint(file: Path) -> Checkpoint:
    """Read one checkpoint and verify its digest. Raises :class:`CheckpointError` that names the damaged file and what to do."""
    tensors, about = _read(file, KEY, "checkpoint", _remedy(file), "start a new run")
    return Checkpoint({name: value.clone() for name, value in tensors.items()}, about["values"])  # the file may be deleted meanwhile


def _read(file: Path, key: str, what: str, remedy: str, of_another_format: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, about, _ = read_sealed(file, key, f"is not a {what}; {remedy}", remedy)
    if (found := about.get("format")) != FORMAT:
        raise CheckpointError(f"{file} has format {shown(found)}, this version reads format {FORMAT}; {of_another_format}")
    return tensors, about


def _remedy(file: Path) -> str:
    files = checkpoint_files(file.parent)
    if earlier := files[: files.index(file)] if file in files else []:
        return f"delete it and use --resume again to fall back to {earlier[-1].name}"
    if file.parent.with_name("metrics.json").exists():
        return "the run is finished and has no earlier checkpoint: restore this one, or train in another folder"
    return "delete it and use --resume again to start from the beginning (there is no earlier checkpoint)"


class Known(NamedTuple):
    """The optimisers' state by ``PARAMETER.KEY`` and those above; all steps of this run and of those before it; rows a step."""

    tensors: dict[str, Tensor]
    steps: int
    batch: int


def write_known(path: Path, known: Known, weights: str) -> None:
    """Write ``optimiser.safetensors``. It belongs to the weights of this digest, see :func:`.tensors.write_sealed`."""
    write_sealed(path, known.tensors, {"format": FORMAT, "steps": known.steps, "batch": known.batch, "weights": weights}, KNOWN_KEY)


def read_known(path: Path, weights: str) -> Known:
    """What the optimisers know. Raises :class:`CheckpointError` for a file that is missing, damaged, or of another version or run."""
    remedy = "train that run with --resume, which writes it, or restore it: without what its optimisers know, going on makes a model worse"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; {remedy}")
    tensors, about = _read(path, KNOWN_KEY, "file of optimisers", remedy, remedy)
    steps, batch, made_with = (about.get(key) for key in ("steps", "batch", "weights"))
    if not {READS, IDLE} <= tensors.keys() or type(steps) is not int or type(batch) is not int or batch < 1:
        raise CheckpointError(f"{path} is not a file of optimisers; {remedy}")
    if made_with != weights:
        raise CheckpointError(f"{path} belongs to other weights than the run's; {remedy}")
    return Known(tensors, steps, batch)


def moved(known: Known, sources: Tensor) -> Known:
    """The same in tables whose rows come from those in ``sources``, int64 [rows]; new ids, where it is -1, have zeros."""
    kept = sources >= 0

    def table(value: Tensor) -> Tensor:
        found = value.new_zeros(len(sources), *value.shape[1:])
        found[kept] = value[sources[kept]]
        return found

    tables = (f"model.{EMBEDDING}.", f"model.{FIRST_ORDER}.", READS, IDLE, *OF_FIRST_ORDER[:2])
    of_ids = {name: table(value) for name, value in known.tensors.items() if value.dim() and name.startswith(tables)}
    return known._replace(tensors=known.tensors | of_ids)
