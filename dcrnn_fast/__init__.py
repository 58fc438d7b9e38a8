"""DCRNN, one model for click and consume: a deep cross network run as an RNN, with partial parameter sharing between tasks."""

from importlib.metadata import PackageNotFoundError, version

from . import functional, reference
from .auto import tune
from .backends import extension
from .errors import BackendUnavailable, DcrnnFastError
from .losses import UncertaintyWeighting
from .modules import DCRNN, GDCN, CrossRNN, DCNv2, PartiallySharedLinear, ScenarioCrossRNN
from .sharing import SharingPlan

try:
    __version__ = version("dcrnn_fast")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

extension()  # registers the operators' schemas with PyTorch

__all__ = [
    "DCRNN",
    "GDCN",
    "BackendUnavailable",
    "CrossRNN",
    "DCNv2",
    "DcrnnFastError",
    "PartiallySharedLinear",
    "ScenarioCrossRNN",
    "SharingPlan",
    "UncertaintyWeighting",
    "functional",
    "reference",
    "tune",
]
