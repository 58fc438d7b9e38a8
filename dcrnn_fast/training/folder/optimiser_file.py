"""``optimiser.safetensors``: what a run's optimisers know, and how often and how lately ids were read, for a run that goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...errors import CheckpointError, shown
from ...nn.features import EMBEDDING, FIRST_ORDER
from .tensors import read_sealed, write_sealed

FORMAT, KEY = 2, "dcrnn_fast_optimiser"
READS, IDLE = "reads", "idle"
OF_FIRST_ORDER = ("first_order.curvature", "first_order.score", "first_order.variance")
"""How many train rows of this run and of those before it hold each id, int64 [rows of the table of ids]; how many runs in a row, this one
the last, held none, int32 [as many]; and the last three of :class:`..loop.first_order.Start`."""
REMEDY = "restore it, or delete it to go on without what the optimisers know"


class Known(NamedTuple):
    """The optimisers' state by ``PARAMETER.KEY`` and those above; all steps of this run and of those before it; rows a step."""

    tensors: dict[str, Tensor]
    steps: int
    batch: int


def write_known(path: Path, known: Known, weights: str) -> None:
    """Write the file. It belongs to the weights of this digest, see :func:`.tensors.write_sealed`."""
    write_sealed(path, known.tensors, {"format": FORMAT, "steps": known.steps, "batch": known.batch, "weights": weights}, KEY)


def read_known(path: Path, weights: str) -> Known | None:
    """What the optimisers know; None if there is no file, or the run's weights are others.

    Raises :class:`CheckpointError` for a file that is damaged or of another version.
    """
    if not path.exists():
        return None
    tensors, about, _ = read_sealed(path, KEY, f"is no file of optimisers; {REMEDY}", REMEDY)
    if (found := about.get("format")) != FORMAT:
        raise CheckpointError(f"{path} has format {shown(found)}, this version reads format {FORMAT}; {REMEDY}")
    steps, batch, made_with = (about.get(key) for key in ("steps", "batch", "weights"))
    if READS not in tensors or type(steps) is not int or type(batch) is not int or batch < 1:
        raise CheckpointError(f"{path} is no file of optimisers; {REMEDY}")
    return Known(tensors, steps, batch) if made_with == weights else None


def moved(known: Known, sources: Tensor) -> Known:
    """The same in tables whose rows come from those in ``sources``, int64 [rows]; new ids, where it is -1, have zeros."""
    kept = sources >= 0

    def table(value: Tensor) -> Tensor:
        found = value.new_zeros(len(sources), *value.shape[1:])
        found[kept] = value[sources[kept]]
        return found

    tables = (f"model.{EMBEDDING}.", f"model.{FIRST_ORDER}.", READS, IDLE, *OF_FIRST_ORDER[:2])
    of_ids = {name: table(value) for name, value in known.tensors.items() if value.dim() and name.startswith(tables)}
    return known._replace(tensors=known.tensors | of_ids)
