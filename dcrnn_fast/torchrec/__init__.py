"""DCRNN for users of torchrec: tables that many processes share, and KeyedJaggedTensors in and out.

Importing it imports torchrec, which nothing else in the package does. Raises :class:`dcrnn_fast.errors.MissingExtra` where that fails.
"""

from ..errors import MissingExtra, shown

try:
    import torchrec  # noqa: F401
except Exception as error:  # a library of fbgemm that does not fit PyTorch raises OSError, and what others raise is not known
    raise MissingExtra(
        f"dcrnn_fast.torchrec cannot be used: importing torchrec fails with {type(error).__name__}: {shown(str(error))}. torchrec 1.8.0 "
        "with fbgemm-gpu-cpu 1.8.0 was tested with PyTorch 2.13; install these: pip install 'dcrnn_fast[torchrec]' && pip install "
        "--no-deps torchrec==1.8.0"  # without its requirements, which name fbgemm's build for CUDA
    ) from error

from .keyed_jagged import from_keyed_jagged_tensor, to_keyed_jagged_tensor
from .model import DCRNN, shard

__all__ = ["DCRNN", "from_keyed_jagged_tensor", "shard", "to_keyed_jagged_tensor"]
