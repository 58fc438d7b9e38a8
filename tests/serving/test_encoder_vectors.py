"""The cases of encoder_vectors.json, by which encoders in other languages are tested, are those of the Python encoder.

``python -m tests.serving.test_encoder_vectors`` reads each case, of which docs/guide/encoding.md gives the parts, and writes behind its
columns the ids, dense values or error of the Python encoder: a new case is a line without these.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import DataError

FILE = Path(__file__).with_name("encoder_vectors.json")
CASES = json.loads(FILE.read_text(encoding="ascii"))["cases"]
RESULTS = ("ids", "dense_values", "dense_bits", "error")


def shortest(value):
    """A float32 by its fewest digits, written as Python writes a float: how NumPy writes one depends on its version."""
    return repr(float(np.format_float_scientific(value)))


def result(one):
    """What the Python encoder makes of a case: ids and dense values, or the error's column and row, where it names them."""
    try:
        encoder = Encoder(tasks=["click"], num_embeddings=dict(map(tuple, one["fields"])), dense=one["dense"], **one["encoder"])
        ids, dense = encoder.encode(one["columns"])
    except DataError as error:
        row, column = (re.search(pattern, str(error)) for pattern in (r"row ([\d,]+): ", r"column '([^']*)'"))
        return {"error": {"column": column and column[1], "row": row and int(row[1].replace(",", ""))}}
    found = {"ids": ids.tolist()}
    if dense is not None:
        found["dense_values"] = [[shortest(value) for value in row] for row in dense.numpy()]
        found["dense_bits"] = [[f"{value:08x}" for value in row] for row in dense.numpy().view(np.uint32).tolist()]
    return found


def content():
    """The text of the file."""
    lines = ",\n".join(json.dumps({key: one[key] for key in one if key not in RESULTS} | result(one)) for one in CASES)
    return f'{{"format": 1, "cases": [\n{lines}\n]}}\n'


@pytest.mark.parametrize("one", CASES, ids=[one["name"] for one in CASES])
def test_the_python_encoder_gives_the_vectors(one):
    assert result(one) == {key: one[key] for key in RESULTS if key in one}


def test_the_file_is_what_its_command_writes():
    assert FILE.read_text(encoding="ascii") == content(), "run: python -m tests.serving.test_encoder_vectors"


def test_most_vectors_tell_ids_apart():
    """Otherwise an encoder that gives 0 everywhere would pass."""
    same = [one["name"] for one in CASES if "ids" in one and len(one["ids"]) > 1 and not any(any(row) for row in one["ids"])]
    assert len(same) <= 2, same


if __name__ == "__main__":
    FILE.write_text(content(), encoding="ascii")
