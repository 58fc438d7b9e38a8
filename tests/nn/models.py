"""Small models and batches for the model's tests."""

import pytest
import torch

from dcrnn_fast import DCRNN, reference
from dcrnn_fast.ops import backends

SIZES = {"user": 7, "item": 11, "hour": 3}


def batch(rows: int = 9, num_dense: int = 0, tasks: int = 2, dtype: torch.dtype = torch.float32):
    """(ids, dense or None, funnel labels in which a later event implies the earlier one)."""
    ids = torch.stack([torch.randint(0, size, (rows,)) for size in SIZES.values()], dim=1)
    dense = torch.randn(rows, num_dense, dtype=dtype) if num_dense else None
    labels = torch.randint(0, 2, (rows, tasks)).cumprod(dim=1).to(dtype)
    return ids, dense, labels


both_ways = pytest.mark.parametrize(
    ("source", "target"), [(DCRNN, reference.DCRNN), (reference.DCRNN, DCRNN)], ids=["to-reference", "to-fast"]
)
"""A change of the import from one class to the other, in both directions."""


def check_swap(before, after, *inputs):
    """``after`` takes the weights of ``before``, and then gives its outputs: their bits where both compute on the reference."""
    after.load_state_dict(before.state_dict(), strict=True)
    if backends.resolve("auto") == "reference":
        assert torch.equal(after(*inputs), before(*inputs))
    else:
        torch.testing.assert_close(after(*inputs), before(*inputs))
