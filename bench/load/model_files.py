"""What the servers serve, and what they are asked: a model with random weights, its exported files, and bodies of requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dcrnn_fast.data import prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.data.encoder.run_folder import ENCODER, WEIGHTS
from dcrnn_fast.serving import export
from dcrnn_fast.training.folder.weights import describe, export_weights

from ..steps import default_model

DATA = "census-income"
BODIES, CANDIDATES = 256, 200
OF_CANDIDATES = 8
"""How many columns differ between the candidates of a request; its other columns are shared."""


def write_run(folder: Path) -> None:
    """Write the files of a run whose model has the default configuration for census-income, and no training."""
    folder.mkdir()
    dataset = prepare(DATA)
    model, config = default_model(dataset, backend="cpp")
    export_weights(folder / WEIGHTS, model.eval().state_dict(), describe(config, dataset))
    (folder / ENCODER).write_text(json.dumps(dataset.meta.encoding), encoding="utf-8")


def write_exports(run: Path, folder: Path, kinds: list[str]) -> dict[str, Path]:
    """The run's exported files by kind, "aoti" or "onnx"."""
    files = {kind: folder / f"model.{kind}.{'onnx' if kind == 'onnx' else 'pt2'}" for kind in kinds}
    for kind, file in files.items():
        export(run, file, format=kind)
    return files


def write_bodies(columns: tuple[str, ...], folder: Path) -> dict[int, Path]:
    """Files of request bodies by the number of rows, 1 or :data:`CANDIDATES`: one a line, of the table's rows."""
    table = pq.read_table(EMBEDDED / f"{DATA}.parquet", columns=list(columns)).slice(0, BODIES * 8).to_pydict()
    varying = columns[:OF_CANDIDATES]

    def of_one(row: int) -> dict[str, Any]:
        return {"columns": {name: [table[name][row]] for name in columns}}

    def of_many(row: int) -> dict[str, Any]:
        rows = [(row * 7 + candidate) % len(table[columns[0]]) for candidate in range(CANDIDATES)]
        shared = {name: table[name][row] for name in columns if name not in varying}
        return {"columns": {name: [table[name][at] for at in rows] for name in varying}, "shared": shared}

    files = {1: folder / "one.jsonl", CANDIDATES: folder / "candidates.jsonl"}
    for body, file in zip((of_one, of_many), files.values(), strict=True):
        file.write_text("".join(f"{json.dumps(body(row))}\n" for row in range(BODIES)), encoding="utf-8")
    return files
