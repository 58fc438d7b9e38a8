"""How long does `prepare` take, and how much memory? It prepares a generated table in part files, of 30 million rows or of --rows.

The table has 38 columns: 18 categorical ones with 2 to 1,000,000 values, 18 numeric ones in buckets and as dense values, and a funnel of
two labels. 12 of the categorical columns hold text, 6 integers; 5% of the numbers are missing. The first column is the group too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..interleave import told

CATEGORIES = (1_000_000, 300_000, 50_000, 10_000, 2_000, 1_000, 500, 200, 100, 50, 30, 24, 12, 7, 5, 3, 2, 2)
NUMBERS = 18
PART_ROWS = 500_000


def write_part(path: Path, rows: int, seed: int) -> None:
    """A part file of the table."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    draw, columns = np.random.default_rng(seed), {}
    for number, size in enumerate(CATEGORIES):  # the small ids are the frequent ones; every third column holds numbers, the others text
        ids = pa.array(np.floor(size * draw.random(rows) ** 3).astype(np.int64))
        columns[f"c{number}"] = ids if number % 3 == 0 else pc.binary_join_element_wise(f"v{number}", ids.cast(pa.string()), "-")
    for number in range(NUMBERS):
        values = (
            draw.normal(size=rows) * 10 ** (number % 4),
            np.floor(draw.exponential(20 * (number + 1), rows)),
            np.round(draw.lognormal(3, 1, rows), 2),
        )[number % 3]
        columns[f"n{number}"] = pa.array(values, mask=draw.random(rows) < 0.05)
    click = draw.random(rows) < 0.1
    columns["click"] = pa.array(click.astype(np.int8))
    columns["order"] = pa.array((click & (draw.random(rows) < 0.2)).astype(np.int8))
    pq.write_table(pa.table(columns), path)


def schema(kind: str = "parquet") -> dict:
    """The schema of the table in part files of a kind."""
    return {
        "name": "scale",
        "files": {"all": f"parts/*.{kind}", "test_fraction": 0.2},
        "categorical": [f"c{number}" for number in range(len(CATEGORIES))],
        "numeric": [{"column": f"n{n}", "buckets": 32, "dense": ("log1p", "standardise")[n % 2]} for n in range(NUMBERS)],
        "tasks": [{"name": "click", "column": "click"}, {"name": "order", "column": "order"}],
        "funnel": True,
        "group": "c0",
    }


def measure(folder: Path, cores: int, answer: multiprocessing.connection.Connection) -> None:
    """Prepare the table in this process by some of its cores, and send what it took."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    from dcrnn_fast.data import prepare_folder

    start, start_cpu = time.perf_counter(), time.process_time()
    data = prepare_folder(folder / "scale.yaml", folder / "packed")
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    answer.send(
        {
            "rows": sum(data.meta.rows.values()),
            "columns": len(CATEGORIES) + NUMBERS + 2,
            "fields": len(data.meta.fields),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "packed_mb": sum(file.stat().st_size for file in data.path.iterdir()) / 1e6,
        }
    )


def measured(target: Callable[..., None], folder: Path, cores: int) -> dict[str, Any]:
    """What a process of its own measures: the peak is that of `prepare` alone."""
    spawn = multiprocessing.get_context("spawn")
    receive, send = spawn.Pipe(duplex=False)
    process = spawn.Process(target=target, args=(folder, cores, send))
    process.start()
    send.close()
    row = receive.recv()
    process.join()
    return row


def write_table(folder: Path, rows: int, content: dict) -> None:
    """The part files and the schema."""
    (folder / "parts").mkdir()
    (folder / "scale.yaml").write_text(json.dumps(content), encoding="utf-8")
    for part, first in enumerate(range(0, rows, PART_ROWS)):
        write_part(folder / "parts" / f"part-{part:03}.parquet", min(PART_ROWS, rows - first), part)


def run(options: Namespace) -> dict[str, Any]:
    """Generate, prepare and print."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder, runs = Path(made), []
        write_table(folder, options.rows, schema())
        size = sum(file.stat().st_size for file in (folder / "parts").iterdir())
        for cores in options.cores:
            row = {"kind": "parquet", "cores": cores, "files_mb": size / 1e6, **measured(measure, folder, cores)}
            shutil.rmtree(folder / "packed")
            row |= {"rows_per_second": row["rows"] / row["seconds"], "load_average": os.getloadavg()[0]}
            runs.append(told({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}))
    return {"runs": runs}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=30_000_000)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="how many cores prepare the table, one after another")
    parser.add_argument("--folder", type=Path, default=Path("build/scale"), help="where a folder for the files is made, and deleted")
