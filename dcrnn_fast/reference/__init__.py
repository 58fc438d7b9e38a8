"""DCRNN, and DCN-v2, in plain PyTorch. It says what the fast model and the operators compute: they are tested and measured against it.

``model`` is the model and ``layers`` its layers, to be read from top to bottom; they share no code with the fast modules or the operators.
``operators`` has the operators, which are the backend `reference` too.
"""

from .layers import CrossRNN, DCNv2, PiecewiseLinearEmbedding, ScenarioCrossRNN
from .model import DCRNN
from .operators import cross_rnn, param_gather

__all__ = [
    "DCRNN",
    "CrossRNN",
    "DCNv2",
    "PiecewiseLinearEmbedding",
    "ScenarioCrossRNN",
    "cross_rnn",
    "param_gather",
]
