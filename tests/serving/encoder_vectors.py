"""Writes what the cases of encoder_vectors.json give, by which an encoder in another language is tested.

``python -m tests.serving.encoder_vectors`` reads each case, of which docs/guide/encoding.md gives the parts, and writes behind its
columns the ids, dense values or error of the Python encoder: a new case is a line without these.
"""

import json
import re
from pathlib import Path

import numpy as np

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


if __name__ == "__main__":
    FILE.write_text(content(), encoding="ascii")
