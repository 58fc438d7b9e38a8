"""What a result was measured on, and where it is written."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import dcrnn_fast

RESULTS = Path(__file__).parent / "results"


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def card() -> dict[str, object]:
    """The GPU and what its results depend on; empty where there is none."""
    if not torch.cuda.is_available():
        return {}
    import triton

    from dcrnn_fast.kernels import tile_file

    name = torch.cuda.get_device_name()
    path = tile_file.user_file(name)
    tuned = path if path.is_file() else tile_file.shipped_file(name)
    return {
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "tile sizes": "measured" if tuned.is_file() else "predicted",
    }


def description() -> dict[str, object]:
    """Processor, instruction set, threads and versions; the card's name where a GPU is used."""
    extension = dcrnn_fast.backends.extension()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "isa of the kernels": extension.isa() if extension and not dcrnn_fast.backends.ISA_ERROR else None,
        "threads": torch.get_num_threads(),
        "openmp": {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "OMP_PROC_BIND") if name in os.environ} or "defaults",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **card(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dcrnn_fast": dcrnn_fast.__version__,
        "backend": dcrnn_fast.backends.resolve("auto"),
    }


def write(name: str, content: object) -> Path:
    """Write ``content`` as bench/results/NAME, beside and renamed."""
    return _replace(RESULTS / name, json.dumps(content, indent=1) + "\n")


def merge(name: str, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> list[Path]:
    """Write rows as bench/results/NAME.json and NAME.csv, with what is there: a row of the same ``key`` is replaced.

    Rows that another machine or version measured are not kept: a file's rows can be compared with one another.
    """
    about, kept = description(), rows_of_this_machine(name)
    merged = {tuple(row[column] for column in key): dict(row) for row in [*kept, *rows]}
    ordered = [merged[case] for case in sorted(merged)]
    columns = list(dict.fromkeys(column for row in ordered for column in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ordered)
    return [
        write(f"{name}.json", {"machine": about, "key": list(key), "rows": ordered}),
        _replace(RESULTS / f"{name}.csv", table.getvalue()),
    ]


def rows_of_this_machine(name: str) -> list[dict[str, Any]]:
    """The rows of bench/results/NAME.json that this machine and these versions measured."""
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known["rows"] if known.get("machine") == json.loads(json.dumps(description())) else []


def keys(name: str) -> list[dict[str, Any]]:
    """The cases among :func:`rows_of_this_machine`, each by its key columns."""
    path = RESULTS / f"{name}.json"
    columns = json.loads(path.read_text(encoding="utf-8"))["key"] if path.is_file() else []
    return [{column: row[column] for column in columns} for row in rows_of_this_machine(name)]


def _replace(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
    return path
