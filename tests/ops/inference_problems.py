"""Random arguments of ``features`` and ``towers``, and what they compute in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the operators compute."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def features_arguments(
    *,
    batch: int = 4,
    fields: int = 3,
    numbers: int = 2,
    bins: int = 5,
    width: int = 4,
    more: int | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor | None]:
    """Keyword arguments of ``features``, without numbers where their count is None or 0. The last field reads the rows of the first.

    With ``more``, the blocks lie in copies of a row that has so many other blocks.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = torch.randint(1, 9, (fields,), generator=generator)
    offsets = sizes.cumsum(0) - sizes
    if fields:
        sizes[-1], offsets[-1] = sizes[0], offsets[0]
    rows = int((offsets + sizes).max()) if fields else 0
    drawn = torch.rand(batch, fields, generator=generator, dtype=torch.float64)
    found: dict[str, Tensor | None] = {
        "ids": (drawn * sizes).long(), "table": normal(rows, width).to(dtype), "sizes": sizes, "offsets": offsets,
        **dict.fromkeys(("dense", "lower", "scale", "weight", "bias", "row", "places")),
    }  # fmt: skip
    if numbers:
        lower = torch.linspace(-2, 2, bins + 1, dtype=torch.float64)[:-1].expand(numbers, bins)
        of_numbers = {
            "dense": normal(batch, numbers), "lower": lower.clone(), "scale": torch.full((numbers, bins), bins / 4, dtype=torch.float64),
            "weight": normal(numbers, bins, width), "bias": normal(numbers, width),
        }  # fmt: skip
        found |= {name: tensor.to(exact_of(dtype)) for name, tensor in of_numbers.items()}
    if more is not None:
        blocks = fields + (numbers or 0)
        found["row"] = normal((blocks + more) * width).to(dtype)
        found["places"] = torch.randperm(blocks + more, generator=generator)[:blocks]
    return found


def plain_features(
    ids: Tensor,
    table: Tensor,
    sizes: Tensor,
    offsets: Tensor,
    dense: Tensor | None,
    lower: Tensor | None,
    scale: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    row: Tensor | None = None,
    places: Tensor | None = None,
) -> Tensor:
    """The features in the dtype of the table."""
    if row is not None and places is not None:
        blocks = plain_features(ids, table, sizes, offsets, dense, lower, scale, weight, bias)
        batch, width = len(ids), table.shape[1]
        out = row.repeat(batch, 1)
        out.view(batch, len(row) // max(width, 1), width)[:, places] = blocks.view(batch, len(places), width)
        return out
    looked_up = table[ids + offsets].flatten(1)  # [B, F * E]
    if dense is None or lower is None or scale is None or weight is None or bias is None:
        return looked_up
    parts = ((dense.unsqueeze(-1) - lower) * scale).clamp(0, 1).to(table.dtype)  # [B, N, Q]
    embedded = torch.baddbmm(bias.to(table.dtype).unsqueeze(1), parts.transpose(0, 1), weight.to(table.dtype))  # [N, B, E]
    return torch.cat([looked_up, embedded.transpose(0, 1).flatten(1)], dim=1)


def towers_arguments(
    *, tasks: int = 2, batch: int = 4, dim: int = 5, widths: tuple[int, ...] = (32, 16), dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Keyword arguments of ``towers``."""
    generator = torch.Generator().manual_seed(seed)
    packed, below = [], dim
    for width in (*widths, 1):
        packed += [torch.randn(tasks, below * width, generator=generator, dtype=torch.float64) / max(below, 1) ** 0.5]
        packed += [torch.randn(tasks, width, generator=generator, dtype=torch.float64)]
        below = width
    return {
        "states": torch.randn(tasks, batch, dim, generator=generator, dtype=torch.float64).to(dtype),
        "packed": torch.cat(packed, dim=1).to(exact_of(dtype)),
        "widths": torch.tensor(widths, dtype=torch.int64),
    }


def plain_towers(states: Tensor, packed: Tensor, widths: Tensor) -> Tensor:
    """z [B, T] in the dtype of the states."""
    tasks, packed, below, place = len(states), packed.to(states.dtype), states.shape[2], 0
    for width in (*widths.tolist(), 1):
        weight = packed[:, place : place + below * width].view(tasks, below, width)
        bias = packed[:, place + below * width : place + (below + 1) * width].unsqueeze(1)
        place += (below + 1) * width
        states, below = torch.baddbmm(bias, states, weight), width
        if place < packed.shape[1]:
            states = states.relu()
    return states.squeeze(-1).T
