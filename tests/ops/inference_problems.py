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
    tasks: int | None = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor | None]:
    """Keyword arguments of ``features``, without numbers where their count is None or 0. The last field reads the rows of the first.

    With ``more``, the blocks lie in copies of a row that has so many other blocks. The first-order term has ``tasks``, or there is none.
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
        **dict.fromkeys(("dense", "lower", "scale", "weight", "bias", "row", "places", "first_order", "first_order_weight")),
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
    if tasks is not None:
        found["first_order"] = normal(rows, tasks).to(dtype)
        found["first_order_weight"] = normal(numbers, bins, tasks).to(exact_of(dtype)) if numbers else None
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
    first_order: Tensor | None = None,
    first_order_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The features, and the first-order term in float64, by sums in the dtype of the table."""
    read = ids + offsets
    features = table[read].flatten(1)  # [B, F * E]
    term = features.new_empty(len(ids), 0) if first_order is None else first_order[read].sum(1)
    if dense is not None and lower is not None and scale is not None and weight is not None and bias is not None:
        parts = ((dense.unsqueeze(-1) - lower) * scale).clamp(0, 1).to(table.dtype)  # [B, N, Q]
        embedded = torch.baddbmm(bias.to(table.dtype).unsqueeze(1), parts.transpose(0, 1), weight.to(table.dtype))  # [N, B, E]
        features = torch.cat([features, embedded.transpose(0, 1).flatten(1)], dim=1)
        if first_order_weight is not None:
            term = term + parts.flatten(1) @ first_order_weight.to(table.dtype).flatten(0, 1)
    term = term.double()
    if row is None or places is None:
        return features, term
    out = row.repeat(len(ids), 1)
    width = table.shape[1]
    out.view(len(ids), len(row) // max(width, 1), width)[:, places] = features.view(len(ids), len(places), width)
    return out, term


def towers_arguments(
    *,
    tasks: int = 2,
    batch: int = 4,
    dim: int = 5,
    widths: tuple[int, ...] = (32, 16),
    with_term: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor | None]:
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
        "term": torch.randn(batch, tasks, generator=generator, dtype=torch.float64) if with_term else None,
    }


def plain_towers(states: Tensor, packed: Tensor, widths: Tensor, term: Tensor | None = None) -> Tensor:
    """z [B, T] in the dtype of the states."""
    tasks, packed, below, place = len(states), packed.to(states.dtype), states.shape[2], 0
    for width in (*widths.tolist(), 1):
        weight = packed[:, place : place + below * width].view(tasks, below, width)
        bias = packed[:, place + below * width : place + (below + 1) * width].unsqueeze(1)
        place += (below + 1) * width
        states, below = torch.baddbmm(bias, states, weight), width
        if place < packed.shape[1]:
            states = states.relu()
    z = states.squeeze(-1).T
    return z if term is None else z + term.to(z.dtype)
