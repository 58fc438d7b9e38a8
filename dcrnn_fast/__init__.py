"""DCRNN, one model for click and consume: a deep cross network run as an RNN, with partial parameter sharing between tasks.

Importing the package imports nothing else: `dcrnn-fast --help` must not take the seconds that PyTorch takes. A name is imported when it is
asked for. `import dcrnn_fast.functional` registers the operators with PyTorch, as any name that computes does.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
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
    "RowWiseAdagrad",
    "ScenarioCrossRNN",
    "SharingPlan",
    "UncertaintyWeighting",
    "checked",
    "counterfactual_losses",
    "functional",
    "reference",
]

if TYPE_CHECKING:
    from . import functional, reference
    from .errors import BackendUnavailable, DcrnnFastError
    from .estimator import FunnelClassifier as FunnelClassifier  # not in __all__: `import *` must work without the extra `train`
    from .estimator import FunnelTaskClassifier as FunnelTaskClassifier
    from .nn.cross_networks import GDCN, DCNv2
    from .nn.layers import CrossRNN
    from .nn.losses import UncertaintyWeighting, counterfactual_losses
    from .nn.model import DCRNN
    from .nn.row_wise_adagrad import RowWiseAdagrad
    from .nn.scenarios import ScenarioCrossRNN
    from .serving.ranker import Ranker as Ranker  # nor this
    from .sharing import SharingPlan
    from .support.model_inputs import checked

_HOMES = {
    "BackendUnavailable": "errors",
    "CrossRNN": "nn.layers",
    "DCNv2": "nn.cross_networks",
    "DCRNN": "nn.model",
    "DcrnnFastError": "errors",
    "FunnelClassifier": "estimator",
    "FunnelTaskClassifier": "estimator",
    "GDCN": "nn.cross_networks",
    "Ranker": "serving.ranker",
    "RowWiseAdagrad": "nn.row_wise_adagrad",
    "ScenarioCrossRNN": "nn.scenarios",
    "SharingPlan": "sharing",
    "UncertaintyWeighting": "nn.losses",
    "checked": "support.model_inputs",
    "counterfactual_losses": "nn.losses",
}
"""The module that holds each name."""
_OF_TRAIN = {"FunnelClassifier", "FunnelTaskClassifier", "Ranker"}


def __getattr__(name: str) -> object:
    """Import what is asked for. Raises MissingExtra for what needs the extra `train` where its packages are missing."""
    if name in ("functional", "reference", "data", "training"):
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if name not in _OF_TRAIN:
            raise
        from .errors import MissingExtra

        raise MissingExtra(f"dcrnn_fast.{name} needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_OF_TRAIN, "data", "training"})
