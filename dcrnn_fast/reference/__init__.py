"""DCRNN in plain PyTorch: what it computes, written to be read, and the baseline that the fast model is measured against.

``functional`` has the operators, ``layers`` the recurrence and the towers' layer, ``model`` the whole model.
"""

from .functional import cross_rnn, param_gather
from .layers import CrossRNN, PartiallySharedLinear
from .model import DCRNN

__all__ = ["DCRNN", "CrossRNN", "PartiallySharedLinear", "cross_rnn", "param_gather"]
