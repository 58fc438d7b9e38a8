"""A model with fields of every kind, and rows of them."""

import torch

SIZES = {"user": 40, "tags[0]": 6, "tags[1]": 6, "tags[2]": 6, "shop.type": 5, "last[0]": 5, "last[1]": 5}
SHARED = {"tags[1]": "tags[0]", "tags[2]": "tags[0]", "last[0]": "shop.type", "last[1]": "shop.type"}
POOLED = {
    "tags": {"columns": ["tags[0]", "tags[1]", "tags[2]"], "pooling": "mean"},
    "last": {"columns": ["last[0]", "last[1]"], "pooling": "sum"},
}
FIELDS = {"shared_embeddings": SHARED, "pooled": POOLED}
OPTIONS = {**FIELDS, "embedding_dim": 4, "num_dense": 2, "dense_bins": 0, "rank": 4, "tower_dims": (8,), "dropout": 0.0}
IDS = torch.tensor([[39, 1, 2, 5, 4, 1, 2], [0, 2, 2, 0, 0, 3, 0], [1, 0, 0, 0, 2, 0, 0], [2, 4, 0, 0, 1, 4, 0]])
"""Rows whose values stand before the zeros of their field."""


def batch(rows, seed=0):
    """Random ids [B, C], zeros between values included, dense [B, 2] and funnel labels [B, 2]."""
    chance = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=chance) for size in SIZES.values()], dim=1)
    labels = (torch.rand(rows, 2, generator=chance) < 0.5).float().cumprod(dim=1)
    return ids, torch.randn(rows, 2, generator=chance), labels
