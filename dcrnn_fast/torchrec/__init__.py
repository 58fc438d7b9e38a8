"""DCRNN for users of torchrec: tables that many processes share, and KeyedJaggedTensors in and out.

Importing it imports torchrec, which nothing else in the package does. Raises :class:`dcrnn_fast.errors.MissingExtra` where that fails.
"""

from .versions import unusable

try:
    import torchrec  # noqa: F401
except Exception as error:  # a library of fbgemm that does not fit PyTorch raises OSError, and what others raise is not known
    raise unusable(error) from error

from .keyed_jagged import from_keyed_jagged_tensor, to_keyed_jagged_tensor
from .model import DCRNN, shard

__all__ = ["DCRNN", "from_keyed_jagged_tensor", "shard", "to_keyed_jagged_tensor"]
