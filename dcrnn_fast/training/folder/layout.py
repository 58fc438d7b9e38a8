"""The run folder: its files, who may write into it, and the configuration that it belongs to."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ConfigError, RunFolderError
from ...support.files import leftovers
from ...support.locks import locked
from ..config import RunConfig, describe_differences, load_config, located, read_config
from .checkpoint import checkpoint_files
from .run_files import read_with_digest, run_folder_errors, write_file

# Keys that a user may edit in a run's folder. The rows of the data are compared by their digest; threads and backend may change the last
# bits, of which the run says so in a note; the others decide how steps are launched and when something is written, not what is trained.
MAY_CHANGE = ("data", "threads", "backend", "cuda_graph", "checkpoint_every", "log_every")
PAST = "past.parquet"
OVERWRITE = "--overwrite (in Python overwrite=True) replaces the run"


class RunFolder:
    """The paths in one run folder. If ``metrics`` exists, which is written last, the run is finished.

    >>> RunFolder(Path("runs/census")).weights.as_posix()
    'runs/census/model.safetensors'
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / ".lock"
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.json"
        self.weights = root / "model.safetensors"
        self.optimiser = root / "optimiser.safetensors"
        """What a run that goes on from this one takes over, in addition to the weights."""
        self.encoder = root / "encoder.json"
        self.calibration = root / "calibration.json"
        self.schema = root / "schema.yaml"
        """By which the rows of the data were read."""
        self.past = root / PAST
        """What its histories have seen of the rows, which an estimator keeps."""
        self.curves = root / "curves.svg"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"

    def newest_checkpoint(self) -> Path | None:
        """The complete checkpoint of the highest step. Raises :class:`RunFolderError` if the folder cannot be read."""
        with _readable(self.checkpoints):
            found = checkpoint_files(self.checkpoints)
        return found[-1] if found else None

    def read_metrics(self) -> dict[str, Any]:
        """The results of a finished run. Raises :class:`CheckpointError` if the file is missing or not as it was written."""
        return read_with_digest(self.metrics, "go on with --resume to compute it again")

    def check_config(self, written: Mapping[str, Any], now: RunConfig, source: Path) -> None:
        """Raise :class:`ConfigError` if ``source`` was written with another configuration than ``now``, which the run's folder holds."""
        if different := describe_differences(read_config(written, str(source)), now, but=MAY_CHANGE):
            raise ConfigError(
                f"{source} was written with another configuration than {self.config} holds now: {different}; "
                "put the old values back, or start a new run in another folder"
            )

    def claim(self, config: RunConfig) -> None:
        """Delete the files of a run that this one replaces, and write the configuration. From then on the folder belongs to this run."""
        with run_folder_errors(self.root):
            self.metrics.unlink(missing_ok=True)  # A kill leaves an unfinished run of before, and then a new one without a checkpoint.
            for checkpoint in checkpoint_files(self.checkpoints):
                checkpoint.unlink()
            for file in (self.weights, self.optimiser, self.encoder, self.calibration, self.curves, self.schema, self.past):
                file.unlink(missing_ok=True)
            if self.tensorboard.exists():
                shutil.rmtree(self.tensorboard)
        write_file(self.config, config.to_yaml().encode())

    def remove_leftovers(self) -> None:
        """Delete what a killed process left half-written. The caller must hold the lock."""
        files = (self.config, self.metrics, self.weights, self.optimiser, self.encoder, self.calibration, self.curves, self.schema)
        for file in files:
            for beside in leftovers(file):
                beside.unlink()
        for beside in self.checkpoints.glob(".step-*.tmp"):
            beside.unlink()

    def holds_run(self) -> bool:
        """Whether a run was started here. Raises :class:`RunFolderError` if the folder cannot be read."""
        with _readable(self.root):
            return self.config.is_file()


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot read {folder}: {error.strerror or error}; change its permissions, or name another run folder"
        ) from error


def stored_config(root: Path) -> RunConfig:
    """The configuration of the run in ``root``. Raises :class:`CheckpointError` when there is none."""
    folder = RunFolder(root)
    if not folder.holds_run():
        raise CheckpointError(f"{root} holds no run ({folder.config.name} is missing); name the --output folder of a training run")
    return load_config(folder.config)


@contextmanager
def enter_run(root: Path, config: RunConfig, *, resume: bool | None, overwrite: bool) -> Iterator[tuple[RunFolder, RunConfig | None]]:
    """Make the folder of a new run, or enter the folder of a run to resume, and keep every other run out for the block.

    Yields the folder, and the resumed run's configuration or None for a new run. The folder of a new run holds nothing but its lock, or
    the run that it is to ``overwrite``: :meth:`RunFolder.claim` writes the configuration once the data and the model are known to fit. If
    the block ends without it, nothing is changed. ``resume`` is None where a finished run is entered, and no other.

    Raises :class:`RunFolderError` if the folder cannot be made or written, holds something else, or is in use, and :class:`ConfigError`
    that names the keys in which a resumed run's configuration differs.
    """
    folder = RunFolder(root)
    with ExitStack() as stack:
        with run_folder_errors(root):
            if root.exists() and not root.is_dir():
                raise RunFolderError(f"{root} is a file; choose another --output")
            stack.callback(_remove_empty, [path for path in (root, *root.parents) if not path.exists()])
            root.mkdir(parents=True, exist_ok=True)
            names = _names(root)
            if names and not names & {folder.lock.name, folder.config.name}:
                raise _foreign(root)
            try:
                if not stack.enter_context(locked(folder.lock)):
                    raise RunFolderError(f"another run writes to {root} now; wait until it has ended, stop it, or choose another --output")
            except PermissionError:
                if overwrite or not folder.metrics.is_file():  # a finished run is only read
                    raise
            stack.callback(_remove_lock_unless_claimed, folder)
            folder.remove_leftovers()
            holds_run = folder.holds_run()
            stored = _same_run(folder, config, resume) if holds_run and not overwrite else None
            if stored and not folder.metrics.is_file():
                _check_writable(folder)
            if holds_run and overwrite:
                load_config(folder.config)  # which refuses the file of another program that has this name
            elif not stored and _names(root) != {folder.lock.name}:
                raise _foreign(root)
        yield folder, stored


def _check_writable(folder: RunFolder) -> None:
    """A run that goes on must not find out at its next checkpoint, or in TensorBoard's thread, that it may not write."""
    for place in (folder.root, folder.checkpoints, folder.tensorboard):
        if place.exists() and not os.access(place, os.W_OK | os.X_OK):
            with run_folder_errors(place):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _remove_lock_unless_claimed(folder: RunFolder) -> None:
    with suppress(OSError):
        if not folder.config.exists():
            folder.lock.unlink()


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # A folder that is not empty stays, and so do those around it.
        for path in folders:
            path.rmdir()


def _names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def _foreign(root: Path) -> RunFolderError:
    return RunFolderError(f"{root} is not empty and holds no run; choose an empty --output folder")


def _same_run(folder: RunFolder, config: RunConfig, resume: bool | None) -> RunConfig:
    newest, is_finished = folder.newest_checkpoint(), folder.metrics.is_file()
    if not resume and not (resume is None and is_finished):
        state = "a finished run" if is_finished else f"an unfinished run (last checkpoint: {newest.name if newest else 'none'})"
        raise RunFolderError(f"{folder.root} already holds {state}; go on with --resume, or choose another --output; {OVERWRITE}")
    stored = located(load_config(folder.config))
    left_open = {"device": config.device == "auto", "threads": config.threads is None, "precision": config.precision == "auto"}
    config = config.model_copy(update={key: getattr(stored, key) for key, is_open in left_open.items() if is_open})
    if different := describe_differences(stored, config):
        raise ConfigError(
            f"{folder.root} belongs to a run of another configuration: {different}; resume with the run's own, or choose another --output; "
            f"{OVERWRITE}"
        )
    return stored
