"""``optimiser.safetensors``: what the optimisers of a run know, and how often each id was read, for a run that goes on from its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import CheckpointError, shown
from ...support import strict_json
from .run_files import write_file
from .tensors import pack_tensors, read_safetensors, tensor_digest

FORMAT, KEY = 1, "dcrnn_fast_optimiser"
READS, CURVATURE, VARIANCE = "reads", "first_order.curvature", "first_order.variance"
"""How many train rows of this run and of those before it hold each id, int64 [rows of the table of ids]; and what
:class:`..loop.first_order.Start` has of the first-order term."""
REMEDY = "restore it, or delete it to go on without what the optimisers know"


class Known(NamedTuple):
    """The optimisers' state by ``PARAMETER.KEY`` and the three above; all steps of this run and of those before it; rows a step."""

    tensors: dict[str, Tensor]
    steps: int
    batch: int


def write_known(path: Path, known: Known, weights: str) -> None:
    """Write the file. It belongs to the weights of this digest, see :func:`.weights.export_weights`."""
    values = {"format": FORMAT, "steps": known.steps, "batch": known.batch, "weights": weights}
    sealed = values | {"digest": tensor_digest(known.tensors, values)}
    write_file(path, pack_tensors(known.tensors, {KEY: json.dumps(sealed, sort_keys=True)}))


def read_known(path: Path, weights: str) -> Known | None:
    """What the optimisers know; None if there is no file, or the run's weights are others.

    Raises :class:`CheckpointError` for a file that is damaged or of another version.
    """
    if not path.exists():
        return None
    tensors, metadata = read_safetensors(path)
    try:
        values = strict_json.parse(metadata[KEY])
        digest, version = values.pop("digest"), values["format"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no file of optimisers; {REMEDY}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {shown(version)}, this version reads format {FORMAT}; {REMEDY}")
    if digest != tensor_digest(tensors, values):
        raise CheckpointError(f"{path} was changed after it was written: its digest does not match; {REMEDY}")
    return Known(tensors, int(values["steps"]), int(values["batch"])) if values["weights"] == weights else None


def moved(known: Known, rows: Mapping[str, tuple[int, int, int]], before: int, now: int) -> Known:
    """The same with tables of ``now`` rows in place of ``before``; new ids have zeros.

    ``rows`` has, by field, the row at which it started, the one at which it starts, and how many of its ids the earlier run had.
    """

    def grown(value: Tensor) -> Tensor:
        if not value.dim() or len(value) != before:
            return value
        table = torch.zeros(now, *value.shape[1:], dtype=value.dtype)
        for start, target, size in rows.values():
            table[target : target + size] = value[start : start + size]
        return table

    tables = ("model.embedding.weight.", "model.first_order.table.weight.", READS, CURVATURE)
    return known._replace(tensors={name: grown(value) if name.startswith(tables) else value for name, value in known.tensors.items()})
