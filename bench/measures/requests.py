"""How long does a request take? Prepared, eager and compiled models and those of two formats of ``dcrnn-fast export`` take turns, on one
thread.

The model has the default configuration for census-income and random weights; a request is a batch of 1, 64 or 512 rows of ids and dense
values, and its answer the probabilities of all tasks. Encoding raw columns is no part of it. The reference is the same model in plain
PyTorch, and compiled models take any batch. ONNX Runtime runs the reference's graph where its packages are installed.

Then 500 candidates of one user, who has every second column: their scores from raw cells, by ``score`` and by ``predict`` of rows that
repeat the user.

Last, a file of rows, as ``dcrnn-fast predict`` scores it: reading, encoding, scoring and writing, beside the model alone on the same rows,
encoded.
"""

from __future__ import annotations

import copy
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import BlockLoader, Encoder, PackedDataset, prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.serving import score_files
from dcrnn_fast.serving.export.export import Probabilities, traced
from dcrnn_fast.serving.export.formats import PACKAGES, onnx_program, write_compiled, write_onnx
from dcrnn_fast.serving.ranker import BATCH

from ..interleave import compared, figures, rounds, told
from ..steps import default_model

SECONDS, THREADS = 20.0, 1
DATA = "census-income"
BATCHES, CANDIDATES, FILE_ROWS = (1, 64, 512), 500, 262_144
OURS, BFLOAT16, ONNX = "prepared", "prepared in bfloat16", "ONNX Runtime"
Run = Callable[[], Any]


def rows_of(dataset: PackedDataset, batch: int) -> tuple[Tensor, Tensor]:
    """The first test rows."""
    rows = next(BlockLoader(dataset.split("test"), batch).batches())
    assert rows.dense is not None
    return rows.ids[:batch].clone(), rows.dense[:batch].clone()


def packaged(model: DCRNN, folder: Path) -> Callable[[Tensor, Tensor], Any]:
    """The AOTInductor package of a model, as ``dcrnn-fast export --format aoti`` compiles it, loaded."""
    path = folder / "model.pt2"
    write_compiled(traced(model), {}, path)
    return torch._inductor.aoti_load_package(str(path))


def in_onnx(reference: DCRNN, folder: Path) -> Callable[[Tensor, Tensor], Any] | None:
    """The ONNX file of the reference, as ``dcrnn-fast export --format onnx`` writes it, in ONNX Runtime; None where that is missing."""
    if any(find_spec(package) is None for package in PACKAGES):
        print(f"{ONNX}: not measured: its packages are not installed; the extra onnx holds them")
        return None
    path, names = folder / "model.onnx", [*reference.tasks, *(reference.conditionals if reference.relation == "chain" else ())]
    write_onnx(traced(reference), {}, names, path)
    return onnx_program(path, names)


def measure_rows(seconds: float) -> list[dict[str, Any]]:
    """A row for each batch size."""
    dataset = prepare(DATA)
    model, reference = (default_model(dataset, backend=backend)[0].eval() for backend in ("cpp", "reference"))
    prepared, halves = model.prepare_inference(), copy.deepcopy(model).bfloat16().prepare_inference()
    compiled = {
        name: torch.compile(Probabilities(each), dynamic=True) for name, each in (("compiled reference", reference), ("compiled", model))
    }
    found = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        with torch.inference_mode(False), torch.no_grad():
            files = {"AOTInductor": packaged(model, Path(folder)), ONNX: in_onnx(reference, Path(folder))}
        for batch in BATCHES:
            ids, dense = rows_of(dataset, batch)
            whole: dict[str, Callable[[Tensor, Tensor], Any]] = {
                OURS: prepared.predict, BFLOAT16: halves.predict, "eager": model.predict, "reference": reference.predict, **compiled,
                **{name: file for name, file in files.items() if file is not None},
            }  # fmt: skip
            runs: dict[str, Run] = {name: lambda call=call, ids=ids, dense=dense: call(ids, dense) for name, call in whole.items()}
            checked(runs, "reference", {BFLOAT16: 0.01})
            found.append(compared({"B": batch}, runs, [OURS], seconds=seconds, minimum=200))
    return found


def raw_rows(encoder: Encoder, count: int) -> pa.Table:
    """The first rows of the data, of the columns that a model reads."""
    return pq.read_table(EMBEDDED / f"{DATA}.parquet", columns=list(encoder.columns)).slice(0, count)


def measure_candidates(seconds: float) -> dict[str, Any]:
    """One user's candidates, of whom the user has every second column, from raw cells."""
    dataset = prepare(DATA)
    model, encoder = default_model(dataset, backend="cpp")[0].eval(), Encoder.load(dataset.path)
    ranker = Ranker(model, encoder)
    items = raw_rows(encoder, CANDIDATES).to_pydict()
    user = {name: items.pop(name)[0] for name in encoder.columns[::2]}
    repeated = {**items, **{name: [cell] * CANDIDATES for name, cell in user.items()}}
    runs = {"score": lambda: ranker.score(user, items), "predict": lambda: ranker.predict(repeated)}
    checked(runs, "predict", {})
    return {"N": CANDIDATES, "raw": figures(rounds(runs, seconds=seconds, minimum=100, stretch=0.0), ["score"])}


def measure_files(seconds: float) -> dict[str, Any]:
    """A file of each kind, by the clock and in CPU time, in which the thread that reads and encodes ahead counts too."""
    dataset = prepare(DATA)
    model, encoder = default_model(dataset, backend="cpp")[0].eval(), Encoder.load(dataset.path)
    ranker, table = Ranker(model, encoder), raw_rows(encoder, FILE_ROWS)
    ids, dense = encoder.encode(table)
    assert dense is not None
    batches = list(zip(ids.split(BATCH), dense.split(BATCH), strict=True))
    found: dict[str, Any] = {"N": FILE_ROWS}
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in (("parquet", pq.write_table), ("csv", pyarrow.csv.write_csv)):
            path, output = Path(folder) / f"rows.{kind}", Path(folder) / "scores.parquet"
            write(table, path)
            runs = {
                "predict": lambda path=path, output=output: score_files(ranker, [path], output),
                "model": lambda: [ranker.predict_encoded(*batch) for batch in batches],
            }
            for clock, name in ((time.perf_counter, kind), (time.process_time, f"{kind}, CPU time")):
                found[name] = figures(rounds(runs, seconds=seconds, minimum=5, stretch=0.0, clock=clock), ["predict"])
    return found


def checked(runs: dict[str, Run], exact: str, tolerance: dict[str, float]) -> None:
    """Compare the probabilities, and warm up."""
    expected = runs[exact]()
    for name, run in runs.items():
        for score, values in run().items():
            most = {"rtol": 1e-4, "atol": tolerance.get(name, 1e-6)}
            np.testing.assert_allclose(np.asarray(values), np.asarray(expected[score]), err_msg=f"{name}: {score}", **most)
    for _ in range(20):
        for run in runs.values():
            run()


def run(options: Namespace) -> dict[str, Any]:
    """Requests of rows and of candidates, and files."""
    rows, candidates = measure_rows(options.seconds), told(measure_candidates(options.seconds))
    return {"data": DATA, "rows": rows, "candidates": candidates, "files": told(measure_files(options.seconds))}
