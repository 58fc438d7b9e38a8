"""Random models as ``request_pack`` takes them, random rows for ``request``, and what they compute in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dcrnn_fast import reference
from dcrnn_fast.nn.relations import chain_logits

Arguments = dict[str, Any]


def exact_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the operators compute."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pack_arguments(
    *, pooling: tuple[int, ...] = (0, 1, 0, 2), numbers: int = 2, bins: int = 5, width: int = 4, tasks: int = 2,
    cell_tasks: int | None = None, shared: float = 0.5, steps: int = 2, tied: bool = True, cell: str = "gated",
    rank: int = 3, own_rank: int = 0,
    widths: tuple[int, ...] = (32, 16), first_order: bool = True, chain: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0,
) -> Arguments:  # fmt: skip
    """Keyword arguments of ``request_pack``. A field with pooling has two columns; the last field reads the rows of the first."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

    columns = [min(how, 1) + 1 for how in pooling]
    sizes = torch.randint(1, 9, (len(pooling),), generator=generator)
    offsets = sizes.cumsum(0) - sizes
    if len(pooling):
        sizes[-1], offsets[-1] = sizes[0], offsets[0]
    rows, dim, repeat = int((offsets + sizes).max()) if len(pooling) else 0, (len(pooling) + numbers) * width, torch.tensor(columns).long()
    units, gates, own_steps = int(shared * dim), 2 if cell == "gated" else 1, 1 if tied else steps
    of_cell = tasks if cell_tasks is None else cell_tasks
    towers, below = [], dim
    for out in (*widths, 1):
        towers += [normal(tasks, below * out, scale=below**-0.5), normal(tasks, out)]
        below = out
    lower = torch.linspace(-2, 2, bins + 1, dtype=torch.float64)[:-1].repeat(numbers, 1)
    of_numbers = {
        "lower": lower, "scale": torch.full_like(lower, bins / 4), "weight": normal(numbers, bins, width), "bias": normal(numbers, width),
        "first_order_weight": normal(numbers, bins, tasks) if first_order else None,
    }  # fmt: skip
    banks = {
        "shared_weight": normal(own_steps, units, gates, rank), "shared_bias": normal(own_steps, units, gates),
        "private_weight": normal(of_cell, own_steps, dim - units, gates, rank),
        "private_bias": normal(of_cell, own_steps, dim - units, gates),
        "shared_projection": normal(own_steps, rank - own_rank, gates, dim, scale=dim**-0.5),
        "private_projection": normal(of_cell, own_steps, own_rank, gates, dim, scale=dim**-0.5),
    }  # fmt: skip
    exact = exact_of(dtype)
    return {
        "table": normal(rows, width).to(dtype), "sizes": sizes.repeat_interleave(repeat), "offsets": offsets.repeat_interleave(repeat),
        "starts": torch.tensor([0, *columns]).cumsum(0), "pooling": torch.tensor(pooling, dtype=torch.int64),
        **{name: None if value is None or not numbers else value.to(exact) for name, value in of_numbers.items()},
        **{name: value.to(dtype) for name, value in banks.items()}, "steps": steps, "cell": cell,
        "towers": torch.cat(towers, dim=1).to(exact), "widths": torch.tensor(widths, dtype=torch.int64),
        "first_order": first_order, "chain": chain,
    }  # fmt: skip


def request_arguments(pack: Arguments, *, batch: int = 4, log_rate: float = 0.0, probabilities: bool = False, seed: int = 0) -> Arguments:
    """Keyword arguments of ``request`` for that model, with rows for it, but without the packed model."""
    generator, table = torch.Generator().manual_seed(seed), pack["table"]
    drawn = torch.rand(batch, len(pack["sizes"]), generator=generator, dtype=torch.float64)
    numbers = 0 if pack["lower"] is None else len(pack["lower"])
    dense = torch.randn(batch, numbers, generator=generator, dtype=torch.float64).to(exact_of(table.dtype)) if numbers else None
    tasks = len(pack["towers"])
    term = torch.randn(len(table), tasks, generator=generator, dtype=torch.float64).to(table.dtype) if pack["first_order"] else None
    first_order = term if len(pack["pooling"]) else None
    given = {"ids": (drawn * pack["sizes"]).long(), "dense": dense, "table": table, "first_order": first_order}
    return {**given, "log_rate": log_rate, "probabilities": probabilities}


def packed(pack: Arguments) -> Tensor:
    """The model as the operator packs it."""
    found: Tensor = torch.ops.dcrnn_fast.request_pack(**pack)
    return found


def plain_request(pack: Arguments, given: Arguments) -> Tensor:
    """What ``request`` returns, in the dtype of the table until the towers' outputs."""
    table, dtype, ids = pack["table"], pack["table"].dtype, given["ids"]
    read, parts, terms = ids + pack["offsets"], [], []
    for field, how in enumerate(pack["pooling"].tolist()):
        at = slice(int(pack["starts"][field]), int(pack["starts"][field + 1]))
        held = (ids[:, at] != 0).unsqueeze(-1) if how else torch.ones_like(ids[:, at], dtype=torch.bool).unsqueeze(-1)
        count = held.sum(1).clamp(min=1) if how == 1 else 1
        parts.append(table[read[:, at]].masked_fill(~held, 0).sum(1) / count)
        if given["first_order"] is not None:
            terms.append(given["first_order"][read[:, at]].masked_fill(~held, 0).sum(1) / count)
    if given["dense"] is not None:
        filled = ((given["dense"].unsqueeze(-1) - pack["lower"]) * pack["scale"]).clamp(0, 1).to(dtype)  # [B, N, Q]
        embedded = torch.einsum("bnq,nqe->bne", filled, pack["weight"].to(dtype)) + pack["bias"].to(dtype)
        parts.append(embedded.flatten(1))
        if pack["first_order_weight"] is not None:
            terms.append(torch.einsum("bnq,nqt->bt", filled, pack["first_order_weight"].to(dtype)))
    names = [name for name in pack if name.startswith(("shared_", "private_"))]
    states = reference.cross_rnn(torch.cat(parts, 1), steps=pack["steps"], cell=pack["cell"], **{name: pack[name] for name in names})
    states, towers, below, place = states.expand(len(pack["towers"]), -1, -1), pack["towers"].to(dtype), states.shape[2], 0
    for width in (*pack["widths"].tolist(), 1):
        weight = towers[:, place : place + below * width].view(len(towers), below, width)
        states = torch.baddbmm(towers[:, place + below * width : place + (below + 1) * width].unsqueeze(1), states, weight)
        place, below = place + (below + 1) * width, width
        states = states.relu() if place < towers.shape[1] else states
    z = (states.squeeze(-1).T + sum(terms, torch.zeros((), dtype=dtype))).to(exact_of(dtype))
    if not given["probabilities"]:
        return (chain_logits(z) if pack["chain"] else z).T
    z = torch.cat([z[:, :1] + given["log_rate"], z[:, 1:]], dim=1)
    return torch.sigmoid(torch.cat([chain_logits(z), z[:, 1:]], dim=1) if pack["chain"] else z).T
