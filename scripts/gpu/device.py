"""What scripts.gpu runs on the GPU beside pytest, each in its own process: ``facts`` and ``train``."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import cast

TRAINER = ("duckdb", "matplotlib", "platformdirs", "pyarrow", "pydantic", "rich", "safetensors", "sklearn", "tensorboard", "yaml")
"""Modules that training needs beside PyTorch and NumPy."""


def facts() -> int:
    """Print as JSON what figures depend on: the card, or why there is none, and the versions."""
    import torch

    lacks = [name for name in TRAINER if find_spec(name) is None]
    found = {"python": platform.python_version(), **({"trainer lacks": ", ".join(lacks)} if lacks else {})}
    triton = str(__import__("triton").__version__) if find_spec("triton") else "absent"
    found |= {"torch": torch.__version__, "CUDA": str(torch.version.cuda), "triton": triton}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "capability": f"{card.major}.{card.minor}", "multiprocessors": str(card.multi_processor_count)}
    else:
        found["no CUDA device"] = "PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch finds none"
    print(json.dumps(found))
    return 0


def train(batch_size: int, rows: int = 1_000_000) -> int:
    """Train one epoch on a generated table with the defaults, in each of three ways; then time requests.

    Prints what it measures as soon as it is there. Fails where a run does, or where kernel by kernel and as one launch do not end with the
    same weights. Compiled, a step rounds in other places.
    """
    import torch

    from bench.measures.scale import schema, write_part
    from dcrnn_fast.data import prepare_folder
    from dcrnn_fast.training import load_config
    from dcrnn_fast.training import train as train_run
    from dcrnn_fast.training.folder.layout import RunFolder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "parts").mkdir()
        (folder / "scale.yaml").write_text(json.dumps(schema("parquet")), encoding="utf-8")
        write_part(folder / "parts" / "part-000.parquet", rows, 0)
        data = prepare_folder(folder / "scale.yaml", folder / "packed")
        last = data.meta.rows["train"] // batch_size
        first = min(50, last // 2)  # the steps before compile and record
        weights: dict[str, bytes] = {}

        def run(way: str, keys: Mapping[str, bool]) -> str:
            at: dict[int, float] = {}

            def clock(step: int) -> None:
                if step in (first, last):
                    if device == "cuda":
                        torch.cuda.synchronize()
                    at[step] = time.monotonic()

            given = {"data": data.meta.name, "device": device, "optimiser.epochs": 1, "optimiser.batch_size": batch_size}
            given |= {"early_stopping.every_steps": rows, **keys}  # one evaluation, at the end
            made = RunFolder(folder / way)
            train_run(load_config(None, given), made.root, dataset=data, on_step=clock)
            weights[way] = made.weights.read_bytes()
            return f"{(last - first) * batch_size / (at[last] - at[first]):,.0f} training rows/s"

        ways = {"kernel by kernel": {"cuda_graph": False}, "as one launch": {"cuda_graph": True}}
        if device == "cuda":
            ways["compiled, as one launch"] = {"cuda_graph": True, "compile": True}
        for way, keys in ways.items():
            try:
                print(f"batches of {batch_size}, {way}: {run(way, keys)}", flush=True)
            except Exception:
                print(f"FAILED: {way}\n{traceback.format_exc()}", flush=True)
        same = weights.get("kernel by kernel") == weights.get("as one launch")
        print(f"kernel by kernel and as one launch: {'the same' if same else 'FAILED: other'} weights", flush=True)
        (folder / "weights").write_bytes(next(iter(weights.values())))
        with ProcessPoolExecutor(1, get_context("spawn")) as own:  # a step that could not be recorded spoils what is recorded after it
            print(own.submit(requests, folder / "weights", folder / "packed", device).result())
        return int(len(weights) < len(ways) or not same)


def requests(weights: Path, packed: Path, device: str) -> str:
    """Compare requests, which a GPU records, with the model's own logits, and time them."""
    import torch

    from dcrnn_fast import DCRNN
    from dcrnn_fast.data import BlockLoader, open_packed
    from dcrnn_fast.training import load_model

    model = cast(DCRNN, load_model(weights, device=device)[0].eval())
    batch = next(BlockLoader(open_packed(packed).split("test"), 513).batches())
    prepared, found, times = model.prepare_inference(), [], 200 if device == "cuda" else 3
    with torch.no_grad():
        for rows in (1, 5, 64, 512, 513):
            given, seconds = [part[:rows] for part in (batch.ids, batch.dense) if part is not None], []
            there = [part.to(device) for part in given]
            torch.testing.assert_close(prepared(*there), model(*there), rtol=1e-3, atol=1e-4)
            for _ in range(times):
                begin = time.perf_counter()
                prepared(*(part.to(device) for part in given)).cpu()  # from the CPU and back
                seconds.append(time.perf_counter() - begin)
            found.append(f"{rows} rows {1e6 * statistics.median(seconds):,.0f} us")
    return f"requests, from the CPU and back, median of {times}: {', '.join(found)}"


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    sys.exit(train(*map(int, numbers)) if what == "train" else facts())
