"""The servers of the load test, what they serve, and what they are asked.

They serve a model with random weights from its exported files. A server's command is here, and one of them as a running process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from dcrnn_fast.data import prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.data.encoder.run_folder import ENCODER, WEIGHTS
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.serving import export
from dcrnn_fast.training.folder.weights import describe, export_weights

from ..steps import default_model

OURS = "C++, AOTInductor"


class Command(NamedTuple):
    """A server's command line, and what it reads of the environment."""

    words: list[str]
    environment: dict[str, str]


def commands(program: Path, aoti: Path, onnx: Path) -> dict[str, Command]:
    """The servers' commands by name, ours first; those that are not built are left out, with a word."""
    if not program.is_file():
        raise ConfigError(f"{program} does not exist; build the C++ servers first: make measure NAME=load does")
    threads = ["--port", "0", "--threads", str(max(1, (os.cpu_count() or 1) // 2))]
    found = {OURS: Command([str(program), "--model", str(aoti), *threads], {})}
    peer = program.with_name(f"{program.name}_onnxruntime")
    if peer.is_file():
        found["C++, ONNX Runtime"] = Command([str(peer), "--model", str(aoti), *threads], {"DCRNN_FAST_ENGINE_FILE": str(onnx)})
    else:
        print(f"C++, ONNX Runtime is left out: {peer} is not built", flush=True)
    found["Python"] = Command([sys.executable, "-m", "dcrnn_fast", "serve", "--package", str(aoti), *threads], {})
    return found


class Server:
    """A server on loopback, from entering to leaving."""

    def __init__(self, command: Command) -> None:
        self.command, self.url = command, ""

    def __enter__(self) -> Server:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.command.environment}
        self.process = subprocess.Popen(self.command.words, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said.startswith("listening on "):
            self.process.kill()
            raise RuntimeError(f"{' '.join(self.command.words)} said {said!r}, expected 'listening on URL'")
        self.url = said.removeprefix("listening on ").strip()
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()


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
