"""Checkpoints that are whole or absent, and safe to load: safetensors and JSON, nothing is unpickled.

``checkpoints/step-00001234/`` holds ``tensors.safetensors`` (every tensor) and ``state.json`` (everything else, and a SHA-256 over
both). The folder is written under a temporary name in the same place, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import CheckpointError, shown
from ...support import strict_json
from ...support.files import regular_file, sync
from .run_files import run_folder_errors
from .tensors import pack_tensors

FORMAT = 1
KEEP = 2
STEPS = 200
"""Steps between checkpoints if ``checkpoint_every`` is null and a checkpoint is quickly written."""
SHARE = 10
"""After a checkpoint, training goes on for at least this many times as long as writing it took."""
_REPLACED = ".replaced.tmp"
_NAME = re.compile(r"step-(\d{8,})")


class Checkpoint(NamedTuple):
    """The contents of a checkpoint: named tensors on the CPU, and JSON values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_folders(root: Path) -> list[Path]:
    """The complete checkpoints below ``root``, oldest first."""
    if not root.is_dir():
        return []
    named = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def save_checkpoint(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint and delete all but the newest two. Only one process at a time may do so.

    Raises :class:`dcrnn_fast.errors.RunFolderError` when the disk refuses. Earlier checkpoints then stay as they were, and nothing
    half-written is left.
    """
    final = root / f"step-{step:08d}"
    beside, replaced = root / f".{final.name}.tmp", root / f".{final.name}{_REPLACED}"
    with run_folder_errors(final):
        root.mkdir(parents=True, exist_ok=True)
        try:
            beside.mkdir()
            packed = pack_tensors(tensors)
            for name, data in (("tensors.safetensors", packed), ("state.json", _sealed(state, packed))):
                (beside / name).write_bytes(data)
                sync(beside / name)
            sync(beside)
            if final.exists():
                os.replace(final, replaced)  # killed after this, the next run brings it back: see recover
            os.replace(beside, final)
            sync(root)
        except BaseException:
            if replaced.exists() and not final.exists():
                os.replace(replaced, final)
            shutil.rmtree(beside, ignore_errors=True)
            raise
        for old in [*root.glob(replaced.name), *checkpoint_folders(root)[:-KEEP]]:
            delete_checkpoint(old)
    return final


def delete_checkpoint(folder: Path) -> None:
    """Delete a checkpoint. A process killed meanwhile leaves no half of one that looks like a whole one: it has another name by then."""
    doomed = folder.with_name(".step-old.tmp")
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def recover(root: Path) -> None:
    """Bring back a checkpoint whose replacement a kill prevented, and delete what was left half-written or half-deleted."""
    for replaced in root.glob(f".step-*{_REPLACED}"):
        final = root / replaced.name[1:].partition(".")[0]
        if not final.exists():
            os.replace(replaced, final)
    for beside in root.glob(".step-*.tmp"):
        shutil.rmtree(beside, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint and verify its digest. Raises :class:`CheckpointError` that names the damaged file and what to do."""
    state_file, tensor_file = folder / "state.json", folder / "tensors.safetensors"
    try:
        state = strict_json.load(state_file)
        sealed = state["tensors"]
        size, sha256 = sealed["bytes"], sealed["sha256"]
        intact = state.pop("digest", None) == strict_json.json_digest(state)
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, state_file, f"cannot be read ({error})") from error
    if not intact:
        raise damaged(folder, state_file, "was changed after it was written: its digest does not match")
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{state_file} has format {shown(state.get('format'))}, this version reads format {FORMAT}; start a new run")
    try:
        packed = regular_file(tensor_file).read_bytes()
    except OSError as error:
        raise damaged(folder, tensor_file, f"cannot be read ({error.strerror})") from error
    if len(packed) != size:
        raise damaged(folder, tensor_file, f"is truncated or extended: {len(packed)} bytes, expected {size}")
    if hashlib.sha256(packed).hexdigest() != sha256:
        raise damaged(folder, tensor_file, "was changed after it was written: its digest does not match")
    try:
        return Checkpoint(safetensors.torch.load(packed), state["values"])
    except (SafetensorError, KeyError) as error:
        raise damaged(folder, tensor_file, f"holds no checkpoint ({error})") from error


def damaged(folder: Path, file: Path, what: str) -> CheckpointError:
    """The error that ``file`` of the checkpoint ``folder`` cannot be used because it ``what``; it says how to go on."""
    folders = checkpoint_folders(folder.parent)
    earlier = folders[: folders.index(folder)] if folder in folders else []
    again = f"delete the folder {folder} and use --resume again to"
    if earlier:
        remedy = f"{again} fall back to {earlier[-1].name}"
    elif folder.parent.with_name("metrics.json").exists():
        remedy = "the run is finished and has no earlier checkpoint: restore this one, or train in another folder"
    else:
        remedy = f"{again} start from the beginning (there is no earlier checkpoint)"
    return CheckpointError(f"checkpoint {file} {what}; {remedy}")


def _sealed(values: Mapping[str, Any], packed: bytes) -> bytes:
    state = {"format": FORMAT, "values": values, "tensors": {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}}
    return (json.dumps(state | {"digest": strict_json.json_digest(state)}, indent=1, allow_nan=False) + "\n").encode()


class CheckpointPace:
    """Lets a large table not be written so often that training stands still. It decides when something is written, never what is trained.

    >>> times = iter([0.0, 3.0, 32.0, 33.0])
    >>> pace = CheckpointPace(clock=lambda: next(times))
    >>> pace.allows()
    True
    >>> with pace.writing():
    ...     pass
    >>> pace.allows(), pace.allows()
    (False, True)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._from: float | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The block writes a checkpoint."""
        start = self._clock()
        yield
        end = self._clock()
        self._from = end + SHARE * (end - start)

    def allows(self) -> bool:
        """Whether training has gone on for long enough since the last checkpoint."""
        return self._from is None or self._clock() >= self._from
