"""Errors whose message alone tells a user what came, what was expected and what to do.

The command line prints the message of a :class:`DcrnnFastError` and exits with 2; every other exception is a defect and keeps
its traceback.
"""


class DcrnnFastError(Exception):
    """Base of the errors a user can mend."""


class BackendUnavailable(DcrnnFastError, RuntimeError):  # noqa: N818 (an availability, as the design names it)
    """A backend was asked for by name and cannot run here; the message says why and what to do."""


class ConfigError(DcrnnFastError, ValueError):
    """A run configuration names an unknown key or holds a value outside its range."""


class DataError(DcrnnFastError, ValueError):
    """A table, schema or packed data set is missing, incomplete or inconsistent."""


class CheckpointError(DcrnnFastError, RuntimeError):
    """A checkpoint or weight file is missing, damaged, or belongs to another model."""


class RunFolderError(DcrnnFastError, OSError):
    """The run folder cannot be written: read-only, not a folder, or the disk is full."""


class TrainingDivergedError(DcrnnFastError, ArithmeticError):
    """The loss or a weight became infinite or NaN; the last checkpoint is from before that."""
