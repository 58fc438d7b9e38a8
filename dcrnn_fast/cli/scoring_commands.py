"""The commands that score with a run, ``predict``, ``export`` and ``serve``, and ``embeddings``, which writes what it learned of ids."""

from __future__ import annotations

import gc
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, Literal

import typer

from ..errors import ConfigError, check_installed, printable
from .options import BACKEND, DEVICE, Quiet, Run


def predict(
    run: Run,
    inputs: Annotated[list[str], typer.Option("--input", help="File, pattern or folder, repeatable; labels need not be there.")],
    output: Annotated[Path, typer.Option(help="File to write, .parquet or .csv: a row of scores for each input row.")],
    keys: Annotated[list[str] | None, typer.Option("--key", help="Column to copy to the output, repeatable.")] = None,
    schema: Annotated[
        Path | None,
        typer.Option(help="Schema YAML whose `csv`, `missing_values` and `max_rejects` say how to read CSV files; default: the run's."),
    ] = None,
    backend: Annotated[str, BACKEND] = "auto",
    device: Annotated[str, DEVICE] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Stop where a field has lost the ids that it had in the train rows.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score the rows of files of any size with the best weights of a run."""
    from ..data.schema.table import load_schema
    from ..serving import Ranker, score_files
    from ..training.folder.layout import RunFolder
    from .row_progress import row_progress
    from .tables import output_console, print_lines

    ranker, reading = Ranker.load(run, device=device, backend=backend, strict=strict), dict[str, Any]()
    of_run = RunFolder(run).schema
    if schema is not None or of_run.is_file():
        given = load_schema(schema or of_run)
        reading = {"csv": given.csv, "missing_values": given.missing_values, "max_rejects": given.max_rejects}
    with warnings.catch_warnings(), row_progress(quiet=quiet) as progress:
        warnings.showwarning = lambda message, *_: sys.stderr.write(printable(f"warning: {message}\n"))  # type: ignore[assignment]
        rows, rejected = score_files(ranker, inputs, output, keys=keys or (), progress=progress, **reading)
    if quiet:
        return
    lines = [f"{rows:,} rows scored: {', '.join(ranker.names)}"]
    if rejected:
        lines.append(f"Rejected CSV rows: {rejected:,}, in {output}.rejects.parquet")
    print_lines(output_console(), [*lines, f"Scores: {output}"])


def embeddings(
    run: Run,
    field: Annotated[str, typer.Option(help="Categorical field with a vocabulary.")],
    output: Annotated[Path, typer.Option(help="File to write, .parquet: the ids and their vectors.")],
) -> None:
    """Write a field's ids and their embeddings, for a search of neighbours or for `pretrained` of another run."""
    from ..training import write_embeddings
    from .tables import output_console, print_lines

    count = write_embeddings(run, field, output)
    print_lines(output_console(), [f"{count:,} ids of {field} and their vectors: {output}"])


def export(
    run: Run,
    output: Annotated[Path, typer.Option(help="File to write: .pt2, or .onnx with --format onnx.")],
    format: Annotated[
        Literal["pt2", "aoti", "onnx"],
        typer.Option(help="pt2: PyTorch's graph, for any CPU; aoti: compiled; onnx: for ONNX Runtime."),
    ] = "pt2",
    backend: Annotated[str, typer.Option(help="Backend of the operators: auto, cpp or reference.")] = "auto",
    cpu: Annotated[
        Literal["native", "portable"], typer.Option(help="With aoti: for CPUs like this one, or for all with x86-64-v3 (AVX2).")
    ] = "native",
    quiet: Quiet = False,
) -> None:
    """Write the best weights of a run, its encoder and its names as one file, compared with the model on 10,000 drawn rows."""
    from ..serving.export import export as exporting
    from .tables import output_console, print_lines

    difference = exporting.export(run, output, format=format, backend=backend, cpu=cpu)
    if not quiet:
        compared = f"{exporting.ROWS:,} drawn rows: no probability differs from the model's by more than about {difference:.1g}"
        print_lines(output_console(), [compared, f"Exported, format {format}: {output} ({output.stat().st_size:,} bytes)"])


def serve(
    run: Annotated[Path | None, typer.Option(help="Run folder of `dcrnn-fast train`.")] = None,
    package: Annotated[Path | None, typer.Option(help="Instead: .pt2 file of `dcrnn-fast export`.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 1_048_576,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 10_000,
    max_queue_rows: Annotated[int, typer.Option(min=1, help="Rows that wait; more are refused.")] = 100_000,
    max_batch_rows: Annotated[int, typer.Option(min=1, help="Rows of waiting requests that are scored together.")] = 512,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections; further ones are refused.")] = 1000,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads that score.")] = 1,
    grace: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to answer what was accepted, once it is stopped.")] = 10,
    backend: Annotated[str, typer.Option(help="With --run: backend of the operators, see `dcrnn-fast info`.")] = "auto",
    device: Annotated[str, typer.Option(help="With --run: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Serve scores over HTTP. SIGHUP loads the model again, SIGTERM stops; the page for trying it out is at /docs."""
    path = run or package
    if path is None or (run is not None and package is not None):
        raise ConfigError("give either --run, a run folder, or --package, a .pt2 file of `dcrnn-fast export`")
    if max_queue_rows < max_rows:
        raise ConfigError(f"--max-queue-rows {max_queue_rows}: expected at least --max-rows, {max_rows}, or a large request is never taken")
    if package is not None and (device, backend) != ("auto", "auto"):
        raise ConfigError("--device and --backend are for --run; a --package computes as it was exported")
    from ..serving.http import PACKAGES

    check_installed("serve", "serve", PACKAGES)
    import pyarrow

    from ..serving.export.load import load_exported
    from ..serving.http.app import Application, Limits
    from ..serving.http.served import load_served
    from ..serving.http.server import Server, bind
    from ..serving.ranker import Ranker

    asked = SimpleQueue[None]()  # a supervisor may ask for a reload while the model loads for the first time
    signal.signal(signal.SIGHUP, lambda *_: asked.put(None))
    bound = bind(host, port)
    limits = Limits(max_body_bytes, max_rows, max_queue_rows, max_batch_rows, max_connections)
    ranker_of = load_exported if run is None else partial(Ranker.load, device=device, backend=backend)
    pyarrow.array([None])  # imports pandas, if it is installed, before a request waits for that
    gc.collect()
    gc.freeze()  # what was imported stays, and is not walked through again for every request with many cells
    sys.setswitchinterval(0.0005)  # the event loop waits for its turn at each read and write; the usual one is 5 ms
    Server(Application(partial(load_served, path, ranker_of), limits, threads=threads), bound, asked, grace=grace).serve_until_stopped()
