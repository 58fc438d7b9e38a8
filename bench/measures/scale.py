"""How long does `prepare` take, and how much memory? It prepares a generated table in part files, of 30 million rows or of --rows.

The table has 38 columns: 18 categorical ones with 2 to 1,000,000 values, 18 numeric ones in buckets and as dense values, and a funnel of
two labels. 12 of the categorical columns hold text, 6 integers; 5% of the numbers are missing. The first column is the group too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data.packed.arrays import file_sha256

from .. import results
from .measure import Measure

CATEGORIES = (1_000_000, 300_000, 50_000, 10_000, 2_000, 1_000, 500, 200, 100, 50, 30, 24, 12, 7, 5, 3, 2, 2)
NUMBERS = 18
PART_ROWS = 500_000


def write_part(path: Path, rows: int, seed: int) -> None:
    """A part file of the table."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
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
    table = pa.table(columns)
    if path.suffix == ".csv":
        pa_csv.write_csv(table, path)
    else:
        pq.write_table(table, path)


def schema(kind: str) -> dict:
    """The schema of the table."""
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

    steps: dict[str, dict[str, float]] = {}
    current, wall, cpu = "", 0.0, 0.0

    def progress(what: str, done: int, total: int | None) -> None:
        nonlocal current, wall, cpu
        if what != current:
            if current:
                steps[current] = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            current, wall, cpu = what, time.perf_counter(), time.process_time()

    start, start_cpu = time.perf_counter(), time.process_time()
    data = prepare_folder(folder / "scale.yaml", folder / "packed", progress=progress)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    progress("", 0, None)
    answer.send(
        {
            "rows": sum(data.meta.rows.values()),
            "columns": len(CATEGORIES) + NUMBERS + 2,
            "fields": len(data.meta.fields),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "packed_mb": sum(file.stat().st_size for file in data.path.iterdir()) / 1e6,
            "steps": steps,
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


def write_table(folder: Path, kind: str, rows: int, content: dict) -> None:
    """The part files and the schema."""
    (folder / "parts").mkdir()
    (folder / "scale.yaml").write_text(json.dumps(content), encoding="utf-8")
    for part, first in enumerate(range(0, rows, PART_ROWS)):
        write_part(folder / "parts" / f"part-{part:03}.{kind}", min(PART_ROWS, rows - first), part)


def killed(folder: Path, cores: int, kills: int, seconds: float) -> dict[str, Any]:
    """Prepare the table once more, in processes that are killed at random times, then in one that ends.

    One that ends before it is killed does not count, and the next one begins anew. Raises ValueError if the result has other bytes than
    `folder`/packed.
    """
    spawn, draw, whole = multiprocessing.get_context("spawn"), random.Random(kills), folder / "packed"
    whole.rename(folder / "whole")
    begin, left = time.perf_counter(), kills
    receive, send = spawn.Pipe(duplex=False)
    while left:
        process = spawn.Process(target=measure, args=(folder, cores, send))
        process.start()
        process.join(draw.uniform(0, 0.6 * seconds))
        process.kill()
        process.join()
        if whole.exists():
            shutil.rmtree(whole)
            while receive.poll():
                receive.recv()
        else:
            left -= 1
    last = measured(measure, folder, cores)
    found, expected = ({file.name: file_sha256(file) for file in path.iterdir()} for path in (whole, folder / "whole"))
    if found != expected:
        raise ValueError(f"after {kills} kills, the packed folder has other bytes: {found} != {expected}")
    shutil.rmtree(folder / "whole")
    return {"kills": kills, "seconds_with_kills": time.perf_counter() - begin, "seconds_after_the_last": last["seconds"]}


def run(options: Namespace) -> dict[str, Any]:
    """Generate, prepare and print; the row replaces that of the same kind and number of rows."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        write_table(folder, options.kind, options.rows, schema(options.kind))
        size = sum(file.stat().st_size for file in (folder / "parts").iterdir())
        runs = [found for found in results.read(FILE)["runs"] if (found["kind"], found["rows"]) != (options.kind, options.rows)]
        for cores in options.cores:
            row = {"kind": options.kind, "cores": cores, "files_mb": size / 1e6, **measured(measure, folder, cores)}
            if options.kills and cores == options.cores[-1]:
                row |= killed(folder, cores, options.kills, row["seconds"])
            shutil.rmtree(folder / "packed")
            row["rows_per_second"] = row["rows"] / row["seconds"]
            row["load_average"] = os.getloadavg()[0]
            print(json.dumps(row, indent=1), flush=True)
            runs.append(row)
    return {"runs": sorted(runs, key=lambda found: (found["kind"], found["rows"], found["cores"]))}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=30_000_000)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="how many cores prepare the table, one after another")
    parser.add_argument("--kind", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--kills", type=int, default=0, help="kill the last one so often at random, and compare the bytes")
    parser.add_argument("--folder", type=Path, default=Path("build/scale"), help="where a folder for the files is made, and deleted")


FILE = "scale_prepare.json"
MEASURE = Measure("scale", run, FILE, add_options=add_options)
