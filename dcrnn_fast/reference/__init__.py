"""DCRNN in plain PyTorch. It defines what the model computes, and the fast model is tested and measured against it.

``functional`` has the operators, ``layers`` the recurrence and the towers' layer, ``scenarios`` the recurrence with a trunk for
each scenario, ``model`` the whole model.
"""

from .functional import cross_rnn, param_gather
from .layers import CrossRNN, PartiallySharedLinear
from .model import DCRNN
from .numeric import PiecewiseLinearEmbedding
from .scenarios import ScenarioCrossRNN

__all__ = [
    "DCRNN",
    "CrossRNN",
    "PartiallySharedLinear",
    "PiecewiseLinearEmbedding",
    "ScenarioCrossRNN",
    "cross_rnn",
    "param_gather",
]
