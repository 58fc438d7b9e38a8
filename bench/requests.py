"""How long does a request take? ``make requests`` times prepared, eager, compiled and AOTInductor models, interleaved, on one thread.

The model has the default configuration for census-income and random weights; a request is a batch of 1, 64 or 512 rows of ids and dense
values, and its answer the probabilities of all tasks. Encoding raw columns is no part of it. The reference is the same model in plain
PyTorch, and compiled models take any batch.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast import DCRNN
from dcrnn_fast.data import BlockLoader, prepare
from dcrnn_fast.serving.export_aoti import write_compiled
from dcrnn_fast.serving.exporting import Probabilities, traced
from dcrnn_fast.training import load_config
from dcrnn_fast.training.model_file import build_model, describe

from . import machine, results
from .interleave import figures, rounds

DATA, NAME = "census-income", "requests_cpu.json"
BATCHES = (1, 64, 512)
OURS = "prepared"


def packaged(model: DCRNN, folder: Path) -> Callable[[Tensor, Tensor], Any]:
    """The AOTInductor package of a model, as ``dcrnn-fast export --format aoti`` compiles it, loaded."""
    path = folder / "model.pt2"
    write_compiled(traced(model), {}, path)
    return torch._inductor.aoti_load_package(str(path))


def measure(seconds: float) -> list[dict[str, Any]]:
    """A row for each batch size."""
    dataset = prepare(DATA)
    about = describe(load_config(None, {"data": DATA}), dataset)
    torch.manual_seed(0)
    model: Any = build_model(about, device=torch.device("cpu"), backend="cpp").eval()
    reference = build_model(about, device=torch.device("cpu"), backend="reference").eval()
    reference.load_state_dict(model.state_dict())
    prepared = model.prepare_inference()
    rows = next(BlockLoader(dataset.split("test"), max(BATCHES)).batches())
    assert rows.dense is not None
    compiled = {
        name: torch.compile(Probabilities(of), dynamic=True) for name, of in (("compiled reference", reference), ("compiled", model))
    }
    found = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        with torch.inference_mode(False), torch.no_grad():
            aoti = packaged(model, Path(folder))
        for batch in BATCHES:
            ids, dense = rows.ids[:batch].clone(), rows.dense[:batch].clone()
            candidates: dict[str, Callable[[], Any]] = {
                OURS: lambda ids=ids, dense=dense: prepared.predict(ids, dense),
                "eager": lambda ids=ids, dense=dense: model.predict(ids, dense),
                "reference": lambda ids=ids, dense=dense: reference.predict(ids, dense),
                **{name: lambda of=of, ids=ids, dense=dense: of(ids, dense) for name, of in compiled.items()},
                "AOTInductor": lambda ids=ids, dense=dense: aoti(ids, dense),
            }
            for name, run in candidates.items():
                torch.testing.assert_close(
                    run(), candidates["reference"](), rtol=1e-4, atol=1e-6, msg=lambda said, name=name: f"{name}: {said}"
                )
            for _ in range(20):
                for run in candidates.values():
                    run()
            found.append({"B": batch, **figures(rounds(candidates, seconds=seconds, minimum=200, stretch=0.0), [OURS])})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure each batch size")
    parser.add_argument("--dry", action="store_true", help="print the figures and write no file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(given.seconds)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if not given.dry:
        results.write(results.COMMITTED / NAME, {"machine": machine.description(), "data": DATA, "rows": rows})


if __name__ == "__main__":
    main()
