"""DCRNN, one model for click and consume: a deep cross network run as an RNN, with partial parameter sharing between tasks."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

try:
    __version__ = version("dcrnn_fast")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

__all__ = [
    "DCRNN",
    "GDCN",
    "BackendUnavailable",
    "CrossRNN",
    "DCNv2",
    "DcrnnFastError",
    "PartiallySharedLinear",
    "RowWiseAdagrad",
    "ScenarioCrossRNN",
    "SharingPlan",
    "UncertaintyWeighting",
    "counterfactual_losses",
    "functional",
    "reference",
    "tune",
]

_PROGRAM = PurePath((getattr(sys, "argv", None) or [""])[0])
# While Python looks for the module of `python -m dcrnn_fast`, it calls the program "-m".
_IS_COMMAND = _PROGRAM.stem == "dcrnn-fast" or (_PROGRAM.name == "-m" and ("-m", "dcrnn_fast") in pairwise(sys.orig_argv))

if TYPE_CHECKING or not _IS_COMMAND:
    from . import functional, reference
    from .auto import tune
    from .counterfactual import counterfactual_losses
    from .errors import BackendUnavailable, DcrnnFastError
    from .losses import UncertaintyWeighting
    from .modules import DCRNN, GDCN, CrossRNN, DCNv2, PartiallySharedLinear, ScenarioCrossRNN
    from .optim import RowWiseAdagrad
    from .sharing import SharingPlan

    import_module("dcrnn_fast.backends").extension()  # registers the operators' schemas with PyTorch

if TYPE_CHECKING:
    from .serving.ranker import Ranker as Ranker  # not in __all__: `import *` must work without the extra `train`

_IN_PARTS = ("modules", "auto", "losses", "counterfactual", "optim", "sharing", "errors")


def __getattr__(name: str) -> object:
    """What is imported when it is asked for: `Ranker`, whose packages are the extra `train`, and in the command line everything.

    `dcrnn-fast --help` must not take seconds, as PyTorch does.
    """
    if name == "Ranker":
        from .errors import MissingExtra

        try:
            return import_module("dcrnn_fast.serving.ranker").Ranker
        except ModuleNotFoundError as error:
            raise MissingExtra(f"dcrnn_fast.Ranker needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error
    if name not in __all__:
        raise AttributeError(f"module 'dcrnn_fast' has no attribute {name!r}")
    import_module("dcrnn_fast.backends").extension()
    if name in ("functional", "reference"):
        return import_module(f"dcrnn_fast.{name}")
    homes = (import_module(f"dcrnn_fast.{home}") for home in _IN_PARTS)
    return next(getattr(home, name) for home in homes if hasattr(home, name))
