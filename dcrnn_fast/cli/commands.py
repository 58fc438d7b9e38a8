"""The commands of ``dcrnn-fast``. Each imports what it needs when it runs, which keeps ``--help`` fast."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import BackendUnavailable, ConfigError, RunFolderError, shown
from ..support import strict_yaml
from ..support.torchrun import is_first

# Plain help and errors: rich's boxes are noise in a log file.
app = typer.Typer(
    name="dcrnn-fast",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dcrnn-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Train and evaluate DCRNN: click and consume from one model with partially shared parameters."""


class Split(str, Enum):
    """Rows to evaluate on."""

    train = "train"
    valid = "valid"
    test = "test"


@app.command()
def train(
    data: Annotated[str | None, typer.Option(help="Embedded data set, path of a schema YAML, or packed folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="Run configuration (YAML); without it, the defaults.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; default runs/DATA.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the newest checkpoint of --output.")] = False,
    init: Annotated[Path | None, typer.Option(help="Run folder to start from: its weights, vocabulary and settings.")] = None,
    backend: Annotated[str | None, typer.Option(help="Backend of the operators, see `dcrnn-fast info`.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, row order and dropout.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key, e.g. --set model.steps=3.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Train, keep the weights that are best on validation rows, and evaluate them on the test rows."""
    from .. import training
    from ..training.folder.layout import RunFolder, stored_config
    from .progress import choose_report
    from .tables import output_console, print_lines, print_metrics

    given = {
        "data": data,
        "init": None if init is None else str(init),
        "backend": backend,
        "device": device,
        "seed": seed,
        "threads": threads,
    }
    given |= {"optimiser.epochs": epochs, "optimiser.batch_size": batch_size}
    overrides = {key: value for key, value in given.items() if value is not None} | _parse_settings(settings or [])
    if output is None and config is None and "data" in overrides:
        output = _default_output(overrides["data"])
    of_run = resume and config is None and output is not None and RunFolder(output).holds_run()
    if of_run and output is not None:
        config = RunFolder(output).config
    elif init is not None and config is None:
        if data is None:
            raise ConfigError("--init needs --data, the schema of the new rows: without it the run would train on the old ones again")
        stored_config(init)
        config, of_run = RunFolder(init).config, True
    run = training.load_config(config, overrides, of_run=of_run)
    output = output or _default_output(run.data)
    try:
        result = training.train(run, output, resume=resume, report=choose_report(quiet=quiet))
    except KeyboardInterrupt:
        if not is_first():
            raise typer.Exit(130) from None
        go_on = f"go on with: dcrnn-fast train --resume --output {output}"
        typer.echo(f"interrupted; {go_on if RunFolder(output).holds_run() else 'nothing was written yet'}", err=True)
        raise typer.Exit(130) from None
    if not quiet and is_first():
        console = output_console()
        if start := result.get("init"):
            print_metrics(console, f"{result['data']['name']}, test rows, before training", start["metrics"]["test"])
        print_metrics(console, f"{result['data']['name']}, test rows", result["test"])
        print_lines(console, [f"Run folder: {output}"])


@app.command()
def prepare(
    schema: Annotated[Path, typer.Option(help="Schema YAML of the table.")],
    output: Annotated[Path, typer.Option(help="Packed folder to write, which `--data` of the other commands takes.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="File, pattern or folder, repeatable, in place of `files: {all: ...}` in the schema."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the validation rows, where they are drawn.")] = 0,
    valid_fraction: Annotated[float, typer.Option(help="Part of the train rows to draw as validation rows.")] = 0.1,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Encode a table of any size, part by part, into a folder of arrays."""
    from .preparing import run_prepare

    run_prepare(schema, output, inputs=inputs or (), seed=seed, valid_fraction=valid_fraction, quiet=quiet)


@app.command()
def inspect(
    data: Annotated[str | None, typer.Option(help="Embedded data set, path of a schema YAML, or packed folder.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Instead: file, pattern or folder to draft a schema of, repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Report on a table before training: labels, fields, groups by split, and what in them will spoil a run. Or draft its schema."""
    from ..data import data_report, prepare
    from .tables import output_console, print_report

    if (data is None) == (not inputs):
        raise ConfigError("give either --data, to report on a table with a schema, or --input, to draft one")
    if data is None:
        from ..data.inspect.draft import draft_schema

        typer.echo(draft_schema(inputs or ()), nl=False)
        return
    report = data_report(prepare(data))
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_report(output_console(), report)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Option(help="Run folder of `dcrnn-fast train`.")],
    data: Annotated[str | None, typer.Option(help="Other data of the same columns; default: the run's own.")] = None,
    split: Annotated[Split, typer.Option(help="Rows to evaluate on.")] = Split.test,
    backend: Annotated[str | None, typer.Option(help="Backend of the operators; default: the run's.")] = None,
    device: Annotated[str | None, typer.Option(help="Device; default: the run's.")] = None,
    as_served: Annotated[
        bool, typer.Option("--as-served", help="Evaluate the probabilities that `predict` gives, on rows of which none were left out.")
    ] = False,
    bootstrap: Annotated[int | None, typer.Option(help="Resample the rows this often for 95% intervals, e.g. 1000.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Parquet file to write, of predictions and labels.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file to write, of each task's reliability in 10 bins.")] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="FIELD", help="Field, repeatable: metrics of the rows with each of its values too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate the best weights of a run."""
    from .. import training
    from ..training.evaluate.constant import not_better_than_constant
    from .tables import output_console, print_lines, print_metrics, print_sheet, segments_sheet

    options: dict[str, Any] = {"as_served": as_served, "bootstrap": bootstrap, "predictions": predictions, "plot": plot, "by": by or ()}
    result = training.evaluate(run, data=data, split=split.value, device=device, backend=backend, **options)
    of_the_data = [f"warning: {line}" for line in result["warnings"]]
    if as_json:
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
        for line in [*not_better_than_constant(result["metrics"]), *of_the_data]:
            typer.echo(line, err=True)
        return
    console = output_console()
    print_metrics(console, f"{result['data']}, {split.value} rows", result["metrics"])
    for field, entries in result.get("by", {}).items():
        print_sheet(console, segments_sheet(field, entries))
    written = {"Predictions": predictions, "Reliability plot": plot}
    print_lines(console, [*of_the_data, *(f"{what}: {path}" for what, path in written.items() if path is not None)])


class Method(str, Enum):
    """How a task's probabilities are calibrated."""

    platt = "platt"
    isotonic = "isotonic"


@app.command()
def calibrate(
    run: Annotated[Path, typer.Option(help="Run folder of `dcrnn-fast train`.")],
    method: Annotated[Method, typer.Option(help="A line through the logits, or an isotonic regression.")] = Method.platt,
    split: Annotated[Split, typer.Option(help="Rows to fit to.")] = Split.valid,
    backend: Annotated[str | None, typer.Option(help="Backend of the operators; default: the run's.")] = None,
    device: Annotated[str | None, typer.Option(help="Device; default: the run's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Calibrate each task's probabilities on validation rows; `predict` and `Ranker` then give calibrated ones."""
    from .calibrating import run_calibrate

    run_calibrate(run, method=method.value, split=split.value, backend=backend, device=device, as_json=as_json)


@app.command()
def predict(
    run: Annotated[Path, typer.Option(help="Run folder of `dcrnn-fast train`.")],
    inputs: Annotated[list[str], typer.Option("--input", help="File, pattern or folder, repeatable; labels need not be there.")],
    output: Annotated[Path, typer.Option(help="File to write, .parquet or .csv: a row of scores for each input row.")],
    keys: Annotated[list[str] | None, typer.Option("--key", help="Column to repeat beside the scores, repeatable.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Schema YAML whose `csv`, `missing_values` and `max_rejects` say how to read CSV files.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend of the operators, see `dcrnn-fast info`.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Score the rows of files of any size with the best weights of a run."""
    from .predicting import run_predict

    run_predict(run, inputs, output, keys=keys or (), schema=schema, backend=backend, device=device, quiet=quiet)


class Format(str, Enum):
    """What an exported file is."""

    pt2 = "pt2"
    aoti = "aoti"
    onnx = "onnx"
    triton_server = "triton-server"


class Cpu(str, Enum):
    """The CPUs that compiled code is for."""

    native = "native"
    portable = "portable"


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Run folder of `dcrnn-fast train`.")],
    output: Annotated[Path, typer.Option(help="File to write: .pt2, or .onnx with --format onnx; with triton-server, a new folder.")],
    format: Annotated[
        Format,
        typer.Option(
            help="pt2: PyTorch's graph, for any CPU; aoti: compiled; onnx: for ONNX Runtime; triton-server: ONNX for NVIDIA's server."
        ),
    ] = Format.pt2,
    backend: Annotated[str, typer.Option(help="Backend of the operators: auto, cpp or reference.")] = "auto",
    cpu: Annotated[Cpu, typer.Option(help="With aoti: for CPUs like this one, or for all with x86-64-v3 (AVX2).")] = Cpu.native,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write the best weights of a run, its encoder and its names as one file, compared with the model on 10,000 drawn rows."""
    from .exporting import run_export

    run_export(run, output, format=format.value, backend=backend, cpu=cpu.value, quiet=quiet)


@app.command()
def serve(
    run: Annotated[Path | None, typer.Option(help="Run folder of `dcrnn-fast train`.")] = None,
    package: Annotated[Path | None, typer.Option(help="Instead: .pt2 file of `dcrnn-fast export`.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 1_048_576,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 10_000,
    max_queue_rows: Annotated[int, typer.Option(min=1, help="Rows that wait; more are refused.")] = 100_000,
    max_batch_rows: Annotated[int, typer.Option(min=1, help="Rows of waiting requests that are scored together.")] = 512,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads that score.")] = 1,
    grace: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to answer what was accepted, once it is stopped.")] = 10,
    backend: Annotated[str, typer.Option(help="With --run: backend of the operators, see `dcrnn-fast info`.")] = "auto",
    device: Annotated[str, typer.Option(help="With --run: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Serve scores over HTTP. SIGHUP loads the model again, SIGTERM stops; the page for trying it out is at /docs."""
    from .serving import run_serve

    limits = {"max_body_bytes": max_body_bytes, "max_rows": max_rows, "max_queue_rows": max_queue_rows, "max_batch_rows": max_batch_rows}
    run_serve(run, package, host=host, port=port, threads=threads, grace=grace, device=device, backend=backend, **limits)


class Dtype(str, Enum):
    """What the Triton kernels are measured in; tf32 and float32 are float32 tensors."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    tf32 = "tf32"
    float32 = "float32"


@app.command()
def info(
    warm: Annotated[bool, typer.Option("--warm", help="Measure the Triton kernels' tile sizes on this GPU and keep them.")] = False,
    dim: Annotated[int, typer.Option(min=1, help="With --warm: D, the units.")] = 624,
    batch: Annotated[list[str] | None, typer.Option(help="With --warm: rows, repeatable or as 256,8192 (the default).")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="With --warm: tasks.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="With --warm: steps.")] = 3,
    dtype: Annotated[Dtype, typer.Option(help="With --warm: dtype of the products.")] = Dtype.bfloat16,
) -> None:
    """Versions, and which backends can run here; with --warm, measure the GPU kernels first."""
    from ..info import render

    if warm:
        _warm(dim, _parse_counts("--batch", batch or ["256,8192"]), tasks, steps, dtype.value)
    typer.echo(render())


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option(help="Folder of the runs; default: a new one below runs/.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, the table alone.")] = False,
) -> None:
    """Train on both embedded data sets, with the reference and the fast backend, and print one table."""
    from .demo import run_demo
    from .progress import choose_report
    from .tables import output_console

    if output is None:
        names = (Path("runs") / (f"demo-{number}" if number > 1 else "demo") for number in range(1, 10**6))
        output = next(path for path in names if not path.exists())
    elif output.is_dir() and any(output.iterdir()):
        raise RunFolderError(f"{output} is not empty; choose another --output")
    run_demo(output, output_console(), lambda: choose_report(quiet=quiet))


def _warm(dim: int, batches: list[int], tasks: int, steps: int, kind: str) -> None:
    import torch

    from dcrnn_fast.ops import backends

    reason = backends.REASONS["triton"]
    if reason or not torch.cuda.is_available():
        reason = reason or "PyTorch sees no CUDA device; `nvidia-smi` shows which ones the driver sees"
        raise BackendUnavailable(f"--warm measures on a GPU and cannot: {reason}")
    from dcrnn_fast.ops import measure_tiles as tile_measuring

    for number, batch in enumerate(batches, start=1):
        typer.echo(f"measuring {number}/{len(batches)}: {kind}, D={dim}, T={tasks}, B={batch}, L={steps}", err=True)
        tile_measuring.tune(dim, tasks, batch, steps=steps, kind=kind, report=lambda line: typer.echo(f"  {line}", err=True))


def _parse_counts(option: str, values: list[str]) -> list[int]:
    words = [word.strip() for value in values for word in value.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word) >= 1)]
    if wrong:
        raise ConfigError(f"{option} {wrong[0]}: expected whole numbers of at least 1, such as 256,8192")
    return [int(word) for word in words]


def _default_output(data: object) -> Path:
    return Path("runs") / Path(str(data)).stem


def _parse_settings(settings: list[str]) -> dict[str, Any]:
    parsed = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set {shown(setting)}: expected KEY=VALUE, such as optimiser.lr=0.001")
        try:
            parsed[key] = strict_yaml.parse(value)
        except ValueError as error:
            raise ConfigError(f"--set {key}: {shown(value)} is not valid YAML: {error}") from error
    return parsed
