"""Writes a run's model as one file that scores without the run folder, once it is compared with the model."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ...errors import ConfigError, ExportError, check_installed
from ...nn.model import DCRNN
from ...ops.backends import resolve
from ...support.files import output_path, path_of, scratch_folder, writing_output
from ...training.evaluate.calibration_file import LARGEST, SMALLEST, Calibration, Isotonic, Platt
from ..ranker import Ranker, Scores, read_run
from .archive import archive_file
from .formats import CPUS, PACKAGES, check_compiler, kind_of, onnx_program, write_compiled, write_onnx
from .load import inputs_of, load_exported
from .package import MAX_ROWS, describe

SUFFIXES = {"pt2": ".pt2", "aoti": ".pt2", "onnx": ".onnx"}
"""The formats, and how their files' names end."""
TOLERANCE = 1e-5
"""The greatest difference between a probability of the file and the model's."""
ROUNDING = 2.0**-19
"""How far, relative to itself, rounding may move the model's probability before it is calibrated: 16 units in the last place."""
ROWS = 10_000
LIBRARY = "dcrnn_fast"
"""The namespace of the operators in C++."""


class Probabilities(nn.Module):
    """The model's :meth:`DCRNN.predict` as a module: ids, and dense where the model has dense columns, to probabilities [B] by name."""

    def __init__(self, model: DCRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] by name, of ids [B, F] and dense [B, Nd]."""
        return self.model.event_logits.probabilities(
            self.model.conditional_logits(ids, dense)
        )  # predict's no_grad would be a call in the graph


def export(
    run: str | Path,
    output: str | Path,
    *,
    format: str = "pt2",
    backend: str = "auto",
    cpu: str = "native",
    rows: int = ROWS,
    seed: int = 0,
) -> float:
    """Write the model of a run, with its encoder, names and calibration, as one file.

    Args:
        run: the folder; ``model.safetensors`` and ``encoder.json`` suffice.
        output: the file, replaced when all is written and compared; ``.onnx`` for "onnx", else ``.pt2``.
        format: "pt2", PyTorch's graph, for any CPU; "aoti", compiled, which needs a C++ compiler; "onnx", which needs the extra ``onnx``.
        backend: of the operators: "cpp", "reference", or "auto", which takes the first of them that can run. For ONNX, the reference.
        cpu: of "aoti": "native", CPUs with all instruction sets of this one, or "portable", those with x86-64-v3 (AVX2).
        rows: how many drawn rows the file and the model score for the comparison, 1 to 10,000. Their ids are uniform in each field's
            range, and their dense values normal with deviation 2.
        seed: of the draw.

    Returns:
        The greatest difference between a probability of the file and the model's, at most 1e-5; see :func:`compare`.

    Raises:
        TypeError, ValueError: an argument has another type, or a value that is not listed.
        CheckpointError, DataError: the run or ``output`` cannot be used.
        BackendUnavailable, MissingExtra: the backend cannot run here, or a package is not installed.
        ExportError: the format needs what this machine lacks, or the file differs from the model. No file is written.
    """
    run = path_of("run", run)
    if not isinstance(format, str) or format not in SUFFIXES:
        raise ConfigError(f"format={format!r}: expected one of {', '.join(SUFFIXES)}")
    if type(rows) is not int or not 1 <= rows <= ROWS:
        raise ConfigError(f"rows={rows!r}: expected an integer from 1 to {ROWS:,}")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed!r}: expected an integer from 0 to 2**63 - 1")
    if not isinstance(cpu, str) or cpu not in CPUS:
        raise ConfigError(f"cpu={cpu!r}: expected one of {', '.join(CPUS)}")
    if format != "aoti" and cpu != "native":
        raise ConfigError(f"cpu={cpu!r}: it chooses the CPUs of format aoti; a file of format {format} is compiled for none")
    if format != "onnx" and path_of("output", output).suffix == SUFFIXES["onnx"]:
        raise ConfigError(f"output is {str(output)!r}, and format {format!r} writes a .pt2 file: give format='onnx' (--format onnx) too")
    output = output_path("output", output, SUFFIXES[format])
    if format == "aoti":
        check_compiler()
    if format == "onnx":
        check_installed("format onnx", "onnx", PACKAGES)
    kind = kind_of(cpu) if format == "aoti" else {}
    backend = _backend(backend, format)
    parts = read_run(run, device="cpu", backend=backend)
    ranker = Ranker(parts.model, parts.encoder, parts.calibration, parts.id)
    try:
        with scratch_folder() as scratch:
            made = scratch / f"model{SUFFIXES[format]}"
            program = traced(ranker.model, ranker.calibration)
            calls = {str(node.target) for node in program.graph.nodes if str(node.target).startswith(f"{LIBRARY}.")}
            operators = {f"{LIBRARY}::{call.split('.')[1]}" for call in calls}
            texts = describe(format, ranker, parts, backend, operators, kind)
            if format == "onnx":
                write_onnx(program, texts, ranker.names, made)
                predict = onnx_program(made, ranker.names)
            else:
                if format == "aoti":
                    write_compiled(program, texts, made, cpu)
                else:
                    write_program(program, texts, made)
                predict = load_exported(made).predict_encoded
            difference = compare(ranker, predict, rows=rows, seed=seed)
            with writing_output("output", output) as beside:
                shutil.copyfile(made, beside)
    except OSError as error:
        raise ExportError(
            f"the temporary folder {tempfile.gettempdir()} cannot be used: {error.strerror or error}; make room there, or name another "
            "folder in the environment variable TMPDIR"
        ) from error
    return difference


def traced(model: DCRNN, calibration: Calibration | None = None) -> ExportedProgram:
    """The graph of the model's :class:`Probabilities`, :class:`Calibrated` if it has a calibration, with 1 to :data:`MAX_ROWS` rows."""
    probabilities: nn.Module = Probabilities(model)
    if calibration is not None:
        probabilities = Calibrated(probabilities, calibration, model.tasks, model.negative_rate)
    dense = torch.zeros(2, model.num_dense) if model.num_dense else None
    inputs = inputs_of(torch.zeros(2, len(model.num_embeddings), dtype=torch.int64), dense)
    rows = Dim("rows", min=1, max=MAX_ROWS)
    return torch.export.export(probabilities, inputs, dynamic_shapes=tuple({0: rows} for _ in inputs))


def write_program(program: ExportedProgram, texts: Mapping[str, str], path: Path) -> None:
    """Write a graph as a .pt2 archive, without what a reader would have to unpickle or evaluate, and without this machine's paths."""
    for node in program.graph.nodes:
        for key in [key for key in node.meta if key != "val"]:
            del node.meta[key]
    program.example_inputs = None
    program._guards_code = []
    with archive_file(path) as file:
        torch.export.save(program, file, extra_files=dict(texts))


def compare(ranker: Ranker, predict: Callable[..., Mapping[str, object]], *, rows: int, seed: int) -> float:
    """The greatest difference between the probabilities of ``predict`` and the model's, on drawn rows in batches of several sizes.

    A steep step of an isotonic map magnifies rounding, which no two ways to compute share. So a calibrated probability that is further off
    counts by its distance from what the calibration makes of probabilities within :data:`ROUNDING` of the model's.

    Raises ExportError if it is greater than :data:`TOLERANCE`, or not a number.
    """
    ids, dense = draw(ranker.encoder.num_embeddings, len(ranker.encoder.dense), rows, seed)
    plain = Ranker(ranker.model, ranker.encoder)
    greatest, start = 0.0, 0
    for size in (1, 2, 61, 3000, rows):
        some = slice(start, min(start + size, rows))
        start = some.stop
        part = ids[some], None if dense is None else dense[some]
        if not len(part[0]):
            break
        found, expected, (least, most) = predict(*part), ranker.predict_encoded(*part), _range(plain.predict_encoded(*part), ranker)
        for name in ranker.names:
            one = np.asarray(found[name])
            off, beyond = abs(one - expected[name]), np.maximum(np.maximum(least[name] - one, one - most[name]), 0)
            difference = float(np.where(off <= TOLERANCE, off, beyond).max())
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"the exported file gives other probabilities than the model: {name} differs by {difference:.2g}, expected at most "
                    f"{TOLERANCE:g}; nothing was written. Export with another --format or --backend, and report this"
                )
            greatest = max(greatest, difference)
    return greatest


def _range(scores: Scores, ranker: Ranker) -> tuple[Scores, Scores]:
    """The least and the greatest probabilities that a ranker may make of the model's ``scores``."""
    if ranker.calibration is None:
        return scores, scores
    tasks, rate = ranker.model.tasks, ranker.model.negative_rate
    least, most = ({name: np.minimum(p * (1 + by), 1) for name, p in scores.items()} for by in (-ROUNDING, ROUNDING))
    return ranker.calibration.apply(least, tasks, rate), ranker.calibration.apply(most, tasks, rate)


def draw(sizes: Mapping[str, int], num_dense: int, rows: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Ids [rows, F], uniform in each field's range, and dense values [rows, Nd], normal with deviation 2, or None."""
    generator = torch.Generator().manual_seed(seed)
    ranges = torch.tensor(list(sizes.values()), dtype=torch.float64)
    ids = (torch.rand(rows, len(sizes), generator=generator, dtype=torch.float64) * ranges).long()
    return ids, 2 * torch.randn(rows, num_dense, generator=generator) if num_dense else None


def _backend(name: str, format: str) -> str:
    found = "reference" if format == "onnx" and name == "auto" else resolve(name, device="cpu")
    if format == "onnx" and found != "reference":
        raise ConfigError(f"backend={name!r}: ONNX has none of this package's operators; expected 'auto' or 'reference' with format onnx")
    if found not in ("cpp", "reference"):
        raise ConfigError(f"backend={found!r}: exported files compute on a CPU; expected 'cpp' or 'reference'")
    return found


class Calibrated(nn.Module):
    """Gives the calibrated probabilities of a model: ids, and dense where it takes dense, to probabilities [B] in float32 by name.

    It computes in float64 what :meth:`dcrnn_fast.training.evaluate.calibration_file.Calibration.apply` does, by operators that every format
    has, so that a file's reader needs no code for it. ``tasks`` and ``negative_rate`` are the model's.
    """

    def __init__(self, model: nn.Module, calibration: Calibration, tasks: Sequence[str], negative_rate: float) -> None:
        super().__init__()
        self.model = model
        self.tasks, self.names = tuple(tasks), tuple(calibration.maps)
        rates = [negative_rate if name == tasks[0] else 1.0 for name in self.names]
        # A list, because PyTorch's modules have names of their own that a task may have.
        self.maps = nn.ModuleList(_Map(one, rate) for one, rate in zip(calibration.maps.values(), rates, strict=True))

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] by name, of ids [B, F] and dense [B, Nd]."""
        scores: Mapping[str, Tensor] = self.model(ids) if dense is None else self.model(ids, dense)
        found = {name: calibrated(scores[name]) for name, calibrated in zip(self.names, self.maps, strict=True)}
        for before, task in pairwise(self.tasks):
            if task not in found:
                found[task] = found[before] * found[f"{task}_given_{before}"]
        return {name: found[name].float() for name in scores}


class _Map(nn.Module):
    """Probabilities [B] in float32 to calibrated ones in float64. All numbers are buffers: formats keep these in float64."""

    correction: Tensor
    bounds: Tensor

    def __init__(self, fit: Platt | Isotonic, negative_rate: float) -> None:
        super().__init__()
        self.line = _Line(fit) if isinstance(fit, Platt) else _Steps(fit)
        self.register_buffer("correction", torch.tensor(math.log(negative_rate), dtype=torch.float64))
        self.register_buffer("bounds", torch.tensor([SMALLEST, LARGEST], dtype=torch.float64))

    def forward(self, probabilities: Tensor) -> Tensor:
        p = torch.minimum(torch.maximum(probabilities.double(), self.bounds[0]), self.bounds[1])
        z = torch.log(p) - torch.log1p(-p) - self.correction
        return torch.sigmoid(self.line(z) + self.correction)


class _Line(nn.Module):
    slope: Tensor
    intercept: Tensor

    def __init__(self, fit: Platt) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(fit.slope, dtype=torch.float64))
        self.register_buffer("intercept", torch.tensor(fit.intercept, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * z + self.intercept


class _Steps(nn.Module):
    """NumPy's interpolation. The knot at or below a logit is found by a binary search of as many steps as the number of knots asks for."""

    knots: Tensor
    calibrated: Tensor
    slopes: Tensor

    def __init__(self, fit: Isotonic) -> None:
        super().__init__()
        knots, calibrated = torch.tensor(fit.knots, dtype=torch.float64), torch.tensor(fit.calibrated, dtype=torch.float64)
        self.steps = [2**power for power in reversed(range((len(knots) - 1).bit_length()))]
        # Knots at infinity, which no logit reaches, fill up to a power of two, so that the search needs no bounds.
        infinite = knots.new_full((2 ** len(self.steps) - len(knots),), math.inf)
        self.register_buffer("knots", torch.cat([knots, infinite]))
        self.register_buffer("calibrated", calibrated)
        slopes = (calibrated.diff() / knots.diff()).nan_to_num(posinf=0.0)  # Between knots at a denormal distance lies no logit.
        self.register_buffer("slopes", torch.cat([slopes, knots.new_zeros(1)]))

    def forward(self, z: Tensor) -> Tensor:
        z = torch.maximum(z, self.knots[0])
        at = torch.zeros_like(z, dtype=torch.int64)
        for step in self.steps:
            further = at + step
            at = torch.where(z >= self.knots.index_select(0, further), further, at)
        below = self.knots.index_select(0, at)
        return self.calibrated.index_select(0, at) + self.slopes.index_select(0, at) * (z - below)
