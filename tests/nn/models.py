"""Small models and batches for the model's tests."""

import torch

SIZES = {"user": 7, "item": 11, "hour": 3}
PLAIN = {"rank": None, "dense_bins": 0, "dropout": 0.0}
"""The full cell, one projection of all numbers, and the same result at each call."""


def batch(rows: int = 9, num_dense: int = 0, tasks: int = 2, dtype: torch.dtype = torch.float32):
    """(ids, dense or None, funnel labels in which a later event implies the earlier one)."""
    ids = torch.stack([torch.randint(0, size, (rows,)) for size in SIZES.values()], dim=1)
    dense = torch.randn(rows, num_dense, dtype=dtype) if num_dense else None
    labels = torch.randint(0, 2, (rows, tasks)).cumprod(dim=1).to(dtype)
    return ids, dense, labels
