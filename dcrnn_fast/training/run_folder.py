"""The run folder: its files, who may write into it, and the configuration that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import strict_json
from ..errors import CheckpointError, ConfigError, RunFolderError
from .checkpoint import checkpoint_folders
from .config import RunConfig, differing_keys, load_config
from .run_files import run_folder_errors, write_file


class RunFolder:
    """The paths in one run folder. If ``metrics`` exists, which is written last, the run is finished.

    >>> RunFolder(Path("runs/census")).weights.as_posix()
    'runs/census/model.safetensors'
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.json"
        self.weights = root / "model.safetensors"
        self.encoder = root / "encoder.json"
        self.curves = root / "curves.svg"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"

    def newest_checkpoint(self) -> Path | None:
        """The complete checkpoint of the highest step. Raises :class:`RunFolderError` if the folder cannot be read."""
        with _readable(self.checkpoints):
            found = checkpoint_folders(self.checkpoints)
        return found[-1] if found else None

    def read_metrics(self) -> dict[str, Any]:
        """The results of a finished run. Raises :class:`CheckpointError` if the file is damaged."""
        try:
            metrics: dict[str, Any] = strict_json.load(self.metrics)
            whole = isinstance(metrics["data"]["name"], str) and all(
                entry.keys() >= {"rows", "positives", "auc", "log_loss", "calibration"} for entry in metrics["test"].values()
            )
            if not whole:
                raise ValueError("it lacks results")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{self.metrics} cannot be read ({error}); delete it and use --resume to compute it again") from error
        return metrics

    def claim(self, config: RunConfig) -> None:
        """Write the configuration. From then on the folder belongs to this run."""
        write_file(self.config, config.to_yaml().encode())

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


def enter_run(root: Path, config: RunConfig, *, resume: bool) -> tuple[RunFolder, RunConfig | None]:
    """Make the folder of a new run, or enter the folder of a run to resume. Returns the resumed run's configuration, None for a new run.

    Nothing is written yet: :meth:`RunFolder.claim` does that once the data and the model are known to fit. Raises
    :class:`RunFolderError` if the folder cannot be made or holds something else, and :class:`ConfigError` that names the keys in which a
    resumed run's configuration differs.
    """
    folder = RunFolder(root)
    with run_folder_errors(root):
        if root.exists() and not root.is_dir():
            raise RunFolderError(f"{root} is a file; choose another --output")
        if folder.holds_run():
            return folder, _same_run(folder, config, resume)
        if root.is_dir() and any(root.iterdir()):
            raise RunFolderError(f"{root} is not empty and holds no run; choose an empty --output folder")
        root.mkdir(parents=True, exist_ok=True)
    return folder, None


def _same_run(folder: RunFolder, config: RunConfig, resume: bool) -> RunConfig:
    newest = folder.newest_checkpoint()
    if not resume:
        state = (
            "a finished run" if folder.metrics.is_file() else f"an unfinished run (last checkpoint: {newest.name if newest else 'none'})"
        )
        raise RunFolderError(f"{folder.root} already holds {state}; go on with --resume, or choose another --output")
    stored = load_config(folder.config)
    left_open = {"device": config.device == "auto", "threads": config.threads is None}
    config = config.model_copy(update={key: getattr(stored, key) for key, is_open in left_open.items() if is_open})
    different = differing_keys(stored, config)
    if different:
        listed = "; ".join(f"{key} is {now!r} and was {before!r}" for key, (before, now) in different.items())
        raise ConfigError(
            f"{folder.root} belongs to a run of another configuration: {listed}; resume with the run's own, or choose another --output"
        )
    return stored
