"""The TensorBoard log of a run."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ..folder.run_files import run_folder_errors


class Scalars:
    """Scalars by step. A resumed run hides what a killed run wrote after its last checkpoint (``purge_step``)."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        with run_folder_errors(folder):
            self._writer = SummaryWriter(str(folder), purge_step=after_step + 1)

    def add(self, step: int, values: dict[str, float | None]) -> None:
        """Add the values that are defined."""
        with run_folder_errors(self._folder):
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write everything to the disk: if the process is killed, the log must reach up to the checkpoint."""
        with run_folder_errors(self._folder):
            self._writer.flush()

    def __enter__(self) -> Scalars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with run_folder_errors(self._folder):
                self._writer.close()
        except OSError:
            # An error that is already raised says more than a second complaint about a full disk.
            if error is None:
                raise


class NoScalars(Scalars):
    """The log of a process that writes none."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        pass

    def add(self, step: int, values: dict[str, float | None]) -> None:
        """Drop the values."""

    def flush(self) -> None:
        """Write nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass
