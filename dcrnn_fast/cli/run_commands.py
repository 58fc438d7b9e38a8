"""The commands of runs: ``train``, ``tune``, ``evaluate``, ``compare``, ``report``, ``calibrate``, and ``demo``, on embedded data."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ..errors import ConfigError, RunFolderError, printable, shown
from ..support import defaults, strict_yaml
from ..support.torchrun import is_first
from .options import BACKEND, DEVICE, AsJson, BackendOfRun, Data, DeviceOfRun, OtherData, Quiet, Ranks, Run, Runs, Split, SplitToEvaluate


class WithKeys(TyperCommand):
    """A command whose help ends with the keys of ``--set``. It reads the text of config.py, whose import takes as long as PyTorch's."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List the keys, each with its default."""
        tree = ast.parse((Path(__file__).parents[1] / "training" / "config.py").read_text(encoding="utf-8"))
        sections = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}

        def value(node: ast.expr) -> Any:
            return getattr(defaults, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)

        def keys(section: str, prefix: str = "") -> Iterator[tuple[str, str]]:
            for node in sections[section]:
                if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                    name, call = f"{prefix}{ast.unparse(node.target)}", ast.unparse(node.value.func)
                    given = {one.arg: value(one.value) for one in node.value.keywords}
                    if call in sections:
                        yield from keys(call, f"{name}.")
                    elif "default" in given:
                        yield f"{name}={json.dumps(given['default'])}".replace('"', ""), given["description"]

        with formatter.section("Keys of --set, with their defaults"):
            formatter.write_dl(list(keys("RunConfig")))


def train(
    data: Data = None,
    config: Annotated[Path | None, typer.Option(help="Run configuration (YAML); without it, the defaults.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; default runs/DATA.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the newest checkpoint of --output.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --output holds.")] = False,
    init: Annotated[Path | None, typer.Option(help="Run folder to start from: its weights, vocabulary and settings.")] = None,
    backend: Annotated[str | None, BACKEND] = None,
    device: Annotated[str | None, DEVICE] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, row order and dropout.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of those below, e.g. --set model.steps=3.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train, keep the weights that are best on validation rows, and evaluate them on the test rows."""
    from .. import training
    from ..data import known_data_sets
    from ..training.folder.layout import RunFolder, stored_config
    from .progress import choose_report
    from .tables import output_console, print_lines, print_metrics

    given = {"data": data, "init": None if init is None else str(init), "backend": backend, "device": device, "seed": seed}
    given |= {"threads": threads, "optimiser.epochs": epochs, "optimiser.batch_size": batch_size}
    overrides = {key: value for key, value in given.items() if value is not None} | _parse_settings(settings or [])
    if output is None and config is None and "data" in overrides:
        output = _default_output(overrides["data"])
    if resume and config is None and output is not None and RunFolder(output).holds_run():
        config = RunFolder(output).config
    elif init is not None and config is None:
        if data is None:
            raise ConfigError("--init needs --data, the schema of the new rows: without it the run would train on the old ones again")
        stored_config(init)
        config = RunFolder(init).config
    if config is None and "data" not in overrides:
        raise ConfigError(
            f"--data is missing: give an embedded data set ({', '.join(known_data_sets())}), the schema of your own table, which "
            "`dcrnn-fast inspect --input TABLE` drafts, or a packed folder"
        )
    run = training.load_config(config, overrides)
    output = output or _default_output(run.data)
    try:
        result = training.train(run, output, resume=resume, overwrite=overwrite, report=choose_report(quiet=quiet))
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


def tune(
    data: Annotated[str, typer.Option(help="Embedded data set, path of a schema YAML, or packed folder, also s3://...")],
    output: Annotated[Path, typer.Option(help="Folder of tuned.yaml and of the trials, after which the same command goes on.")],
    trials: Annotated[int, typer.Option(min=2, help="Settings to try; the first is the defaults.")] = 30,
    config: Annotated[Path | None, typer.Option(help="Run configuration (YAML); what it sets is not searched.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of `train`, not to search.")] = None,
    quiet: Quiet = False,
) -> None:
    """Search for a setting that is better than the defaults on the validation rows, and write it as a configuration for `train`."""
    from .. import training
    from .progress import choose_report
    from .tables import output_console, print_lines

    run = training.load_config(config, {"data": data} | _parse_settings(settings or []))
    result = training.tune(run, output, trials=trials, report=choose_report(quiet=quiet))
    if not quiet:
        print_lines(output_console(), [*result["summary"], f"Configuration: {output / 'tuned.yaml'}"])


def evaluate(
    run: Run,
    data: OtherData = None,
    split: SplitToEvaluate = "test",
    backend: BackendOfRun = None,
    device: DeviceOfRun = None,
    as_served: Annotated[
        bool, typer.Option("--as-served", help="Evaluate the probabilities that `predict` gives, on rows from which none were left out.")
    ] = False,
    bootstrap: Annotated[int | None, typer.Option(help="Resample the rows this often for 95% intervals, e.g. 1000.")] = None,
    k: Ranks = 10,
    predictions: Annotated[Path | None, typer.Option(help="Parquet file to write, of predictions and labels.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file to write, of each task's reliability in 10 bins.")] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="FIELD", help="Field, repeatable: metrics of the rows with each of its values too.")
    ] = None,
    importance: Annotated[bool, typer.Option("--importance", help="How far each task's AUC falls when an input is shuffled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate the best weights of a run."""
    from .. import training
    from ..training.evaluate.metrics import not_better_than_constant
    from .row_progress import SECONDS, row_progress
    from .tables import importance_sheet, output_console, print_lines, print_metrics, print_sheet, segments_sheet

    options: dict[str, Any] = {"as_served": as_served, "bootstrap": bootstrap, "predictions": predictions, "plot": plot, "by": by or ()}
    options |= {"importance": importance, "k": k}
    with row_progress(patience=SECONDS) as progress:
        result = training.evaluate(run, data=data, split=split, device=device, backend=backend, progress=progress, **options)
    of_the_data = [f"warning: {line}" for line in result["warnings"]]
    if as_json:
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
        for line in [*not_better_than_constant(result["metrics"]), *of_the_data]:
            typer.echo(printable(line), err=True)
        return
    console = output_console()
    print_metrics(console, f"{result['data']}, {result['split']} rows", result["metrics"])
    for field, entries in result.get("by", {}).items():
        print_sheet(console, segments_sheet(field, entries))
    if importance:
        print_sheet(console, importance_sheet(result["importance"], result["importance_intervals"]))
    written = {"Predictions": predictions, "Reliability plot": plot}
    print_lines(console, [*of_the_data, *(f"{what}: {path}" for what, path in written.items() if path is not None)])


def report(
    runs: Runs,
    output: Annotated[Path, typer.Option(help="File to write, .html.")],
    data: OtherData = None,
    split: SplitToEvaluate = "test",
    backend: BackendOfRun = None,
    device: DeviceOfRun = None,
    as_served: Annotated[
        bool | None,
        typer.Option(
            "--as-served/--own", help="Show the probabilities that `predict` gives, or the model's own; default: of a calibrated run both."
        ),
    ] = None,
    k: Ranks = 10,
) -> None:
    """Write one page on a run: metrics with intervals, curves, calibration, what it rests on, and how other runs compare."""
    from .. import training
    from .row_progress import SECONDS, row_progress
    from .tables import output_console, print_lines

    with row_progress(patience=SECONDS) as progress:
        training.write_report(
            runs, output, data=data, split=split, device=device, backend=backend, as_served=as_served, k=k, progress=progress
        )
    print_lines(output_console(), [f"Report: {output}"])


def compare(
    runs: Runs,
    data: OtherData = None,
    split: SplitToEvaluate = "test",
    backend: BackendOfRun = None,
    device: DeviceOfRun = None,
    as_served: Annotated[bool, typer.Option("--as-served", help="Compare the probabilities that `predict` gives.")] = False,
    k: Ranks = 10,
) -> None:
    """Print the metrics of runs of the same rows, and how they differ from the first run's, with 95% intervals."""
    from .. import training
    from .row_progress import SECONDS, row_progress
    from .tables import Sheet, number, output_console, print_lines, print_sheet

    with row_progress(patience=SECONDS) as progress:
        found = training.compare(runs, data=data, split=split, device=device, backend=backend, as_served=as_served, k=k, progress=progress)
    columns = {"task": False, "metric": False, "run": False, "value": True, "difference": True, "95% interval": True}
    sheet = Sheet(f"{found['data']}, {found['split']} rows; differences from {found['runs'][0]['name']}", columns)
    metrics = {name: None for run in found["runs"][1:] for task in run["differences"].values() for name in task}
    for task, metric in product(found["runs"][0]["metrics"], metrics):
        for run in (run for run in found["runs"] if task in run["metrics"]):
            difference = run["differences"].get(task, {}).get(metric, {})
            value, interval = difference.get("value"), difference.get("interval")
            signed = "" if value is None else f"{value:+.4f}"
            ends = "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
            sheet.add(task, metric, run["name"], number(run["metrics"][task][metric]), signed, ends)
    print_sheet(output_console(), sheet)
    print_lines(output_console(), [f"warning: {run['name']}: {line}" for run in found["runs"] for line in run["warnings"]])


def calibrate(
    run: Run,
    data: OtherData = None,
    method: Annotated[Literal["platt", "isotonic"], typer.Option(help="A line through the logits, or an isotonic regression.")] = "platt",
    split: Annotated[Split | None, typer.Option(help="Rows to fit to; default: valid, or all of a table.")] = None,
    backend: BackendOfRun = None,
    device: DeviceOfRun = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate each task's probabilities on validation rows; `predict` and `Ranker` then give calibrated ones."""
    from .. import training
    from .row_progress import SECONDS, row_progress
    from .tables import Sheet, number, output_console, print_lines, print_sheet

    with row_progress(patience=SECONDS) as progress:
        result = training.calibrate(run, data=data, method=method, split=split, backend=backend, device=device, progress=progress)
    if as_json:
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
        return
    columns = ("log loss", "log loss after", "calibration", "calibration after")
    shown = "given" if result["split"] == "given" else "test"
    sheet = Sheet(f"{result['data']}, {shown} rows, calibrated on {result['split']} rows", {"task": False, **dict.fromkeys(columns, True)})
    for task, before in result["before"].items():
        after = result["after"][task]
        sheet.add(task, *(number(entry[name]) for name in ("log_loss", "calibration") for entry in (before, after)))
    console = output_console()
    print_sheet(console, sheet)
    lines = [f"{name}: {fit['method']}, {fit['rows']:,} rows, {fit['positives']:,} positive" for name, fit in result["maps"].items()]
    if result["split"] != "valid":
        lines.append(f"warning: calibrated on {result['split']} rows: what they were used for says little about new rows")
    lines += [f"warning: {line}" for line in result["warnings"]]
    print_lines(console, [*lines, f"Calibration: {result['file']}"])


def demo(
    output: Annotated[Path | None, typer.Option(help="Folder of the runs; default: a new one below runs/.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, the results alone.")] = False,
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


def _default_output(data: object) -> Path:
    return Path("runs") / Path(str(data).partition("?")[0]).stem


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
