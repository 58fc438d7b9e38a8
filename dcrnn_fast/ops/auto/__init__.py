"""Which backend ``auto`` takes on a GPU: checked against float64 and measured at the first call of a size, then remembered.

On a CPU the order of :data:`dcrnn_fast.ops.backends.AUTO` holds: every recorded benchmark supports it. How fast kernels are on a GPU
depends on the card. So there every backend that can run is a *candidate*. It must give the reference's results, as exactly as plain PyTorch
computes them, and take at least a tenth less time than the reference; else the reference computes. A candidate that raises or runs
out of memory is refused for this process. docs/guide/gpu.md explains the rules for people.
"""

from ..backends import MEASURED as DEVICES
from .decision import ENVIRONMENT, mode, summary
from .examiner import Problem
from .memory import INPUTS, SIZES, Choice, Key
from .tuning import tune

__all__ = ["DEVICES", "ENVIRONMENT", "INPUTS", "SIZES", "Choice", "Key", "Problem", "mode", "summary", "tune"]
