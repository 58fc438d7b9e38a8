"""Reads how a run folder encodes its model's inputs: encoder.json, and the description at the head of model.safetensors.

The description names the fields with their numbers of ids, which encoder.json lacks. It stands in the file's first bytes, so that no weight
need be read. Needs the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, DataError, shown
from ...support import strict_json
from ...support.files import regular_file
from ..packed.meta import check_encoding

ENCODER, WEIGHTS = "encoder.json", "model.safetensors"
MAX_HEAD = 100_000_000
"""The most bytes that the head of a safetensors file may have."""
REMEDY = "restore it, or go on with --resume to write it again"


def read_run(folder: Path) -> dict[str, Any]:
    """The `tasks`, `num_embeddings`, `dense`, `vocabulary` and `scaling` of a run's model.

    Raises CheckpointError for a file that is missing, damaged or made up, and for an encoder.json of another model.
    """
    about = _description(folder / WEIGHTS)
    encoding = read_encoding(folder / ENCODER, about)
    return {"tasks": about["tasks"], "num_embeddings": dict(about["fields"]), "dense": about["dense"], **encoding}


def read_encoding(file: Path, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """How the columns of a run's data became ids and dense values: what :func:`dcrnn_fast.data.prepare` takes as ``encoding``.

    ``about`` describes the weights; it is None where none are written yet. Raises CheckpointError if the file is missing, damaged or not
    the described one.
    """
    try:
        encoding: dict[str, Any] = strict_json.load(file)
        check_encoding(encoding)
    except DataError as error:
        raise CheckpointError(f"{file}: {error}; {REMEDY}, or start a new run") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); {REMEDY}") from error
    if about is not None and strict_json.json_digest(encoding) != about["encoding"]:
        raise CheckpointError(f"{file} was changed after it was written: its digest does not match; {REMEDY}")
    return encoding


def _description(file: Path) -> dict[str, Any]:
    try:
        with regular_file(file).open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > min(MAX_HEAD, os.fstat(stream.fileno()).st_size):
                raise ValueError("its head is longer than the file")
            head = strict_json.parse(stream.read(size).decode())
        about = strict_json.parse(head["__metadata__"]["dcrnn_fast"])["about"]
        if not _describes(about):
            raise ValueError(f"its description is {shown(about)}")
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} does not exist; go on with --resume to write it, or name another run folder") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} has no dcrnn_fast description ({error}); {REMEDY}") from error
    return about


def _describes(about: Any) -> bool:
    shape = {"tasks": [str], "dense": [str], "fields": [list], "encoding": str}
    if not strict_json.fits(about, shape) or not all([*map(type, field)] == [str, int] for field in about["fields"]):
        return False
    sizes = dict(about["fields"])
    return len(sizes) == len(about["fields"]) and all(0 < size < 2**31 for size in sizes.values())
