"""What scripts.gpu runs on the GPU beside pytest, each in its own process: ``facts``, ``train`` and, from there, ``requests``."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

WAYS: dict[str, dict[str, Any]] = {
    "kernel by kernel": {"cuda_graph": False},
    "as one launch": {"cuda_graph": True},
    "compiled, as one launch": {"cuda_graph": True, "compile": True},
}


def facts() -> int:
    """Print as JSON what figures depend on: the card, or why there is none, and the versions."""
    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__}
    found["triton"] = str(__import__("triton").__version__) if find_spec("triton") else "absent"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "capability": f"{card.major}.{card.minor}"}
    else:
        found["no CUDA device"] = "PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch finds none"
    print(json.dumps(found))
    return 0


def train(size: str, table: str = "1_000_000") -> int:
    """Train one epoch on a generated table with the defaults, in batches of ``size``, in each of three ways; then time requests.

    Prints what it measures as soon as it is there. Fails where a run does, or where kernel by kernel and as one launch do not end with the
    same weights. Compiled, a step rounds in other places.
    """
    import torch

    from bench.measures.scale import schema, write_part
    from dcrnn_fast.data import prepare_folder
    from dcrnn_fast.training import Report, load_config
    from dcrnn_fast.training import train as train_run
    from dcrnn_fast.training.folder.layout import RunFolder

    batch_size, rows, device = int(size), int(table), "cuda" if torch.cuda.is_available() else "cpu"
    ways, weights = list(WAYS)[: 3 if device == "cuda" else 2], dict[str, bytes]()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "parts").mkdir()
        (folder / "scale.yaml").write_text(json.dumps(schema("parquet")), encoding="utf-8")
        write_part(folder / "parts" / "part-000.parquet", rows, 0)
        data = prepare_folder(folder / "scale.yaml", folder / "packed")
        last = data.meta.rows["train"] // batch_size
        first = min(50, last // 2)  # the steps before compile and record
        for way in ways:
            report, at = Report(), dict[int, float]()

            def clock(*, step: int, at: dict[int, float] = at, **_: Any) -> None:
                if step in (first, last):
                    if device == "cuda":
                        torch.cuda.synchronize()
                    at[step] = time.monotonic()

            report.step = clock  # type: ignore[method-assign]
            given = {"data": data.meta.name, "device": device, "optimiser.epochs": 1, "optimiser.batch_size": batch_size, **WAYS[way]}
            given["early_stopping.every_steps"] = rows  # one evaluation, at the end
            try:
                train_run(load_config(None, given), folder / way, dataset=data, report=report)
                weights[way] = RunFolder(folder / way).weights.read_bytes()
                speed = (last - first) * batch_size / (at[last] - at[first])
                print(f"batches of {batch_size}, {way}: {speed:,.0f} training rows/s", flush=True)
            except Exception:
                print(f"FAILED: {way}\n{traceback.format_exc()}", flush=True)
        same = weights.get("kernel by kernel") == weights.get("as one launch")
        print(f"kernel by kernel and as one launch: {'the same' if same else 'FAILED: other'} weights", flush=True)
        (folder / "weights").write_bytes(next(iter(weights.values())))
        # In another process: a step that could not be recorded spoils what is recorded after it.
        command = (sys.executable, "-m", "scripts.gpu.device", "requests", folder / "weights", folder / "packed", device)
        return int(bool(subprocess.call(command)) or len(weights) < len(ways) or not same)


def requests(weights: str, packed: str, device: str) -> int:
    """Compare requests, which a GPU records, with the model's own logits, and time them."""
    import torch

    from dcrnn_fast import DCRNN
    from dcrnn_fast.data import BlockLoader, open_packed
    from dcrnn_fast.training import load_model

    model = cast(DCRNN, load_model(weights, device=device)[0].eval())
    batch = next(BlockLoader(open_packed(packed).split("test"), 513).batches())
    prepared, times = model.prepare_inference(), 200 if device == "cuda" else 3
    with torch.no_grad():
        for rows in (1, 5, 64, 512, 513):
            given, seconds = [part[:rows] for part in (batch.ids, batch.dense) if part is not None], []
            there = [part.to(device) for part in given]
            torch.testing.assert_close(prepared(*there), model(*there), rtol=1e-3, atol=1e-4)
            for _ in range(times):
                begin = time.perf_counter()
                prepared(*(part.to(device) for part in given)).cpu()
                seconds.append(time.perf_counter() - begin)
            print(f"a request of {rows} rows, from the CPU and back: {1e6 * statistics.median(seconds):,.0f} us, median of {times}")
    return 0


if __name__ == "__main__":
    commands: dict[str, Callable[..., int]] = {"facts": facts, "train": train, "requests": requests}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
