"""What the Triton kernels alone have; and planted defects in them, each of which the check of exactness must find.

tf32: a tensor core drops the last 13 bits of its float32 operands, so the kernels round them first. In the interpreter, the product drops
these bits too.
"""

import shutil
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from dcrnn_fast import reference
from dcrnn_fast.errors import BackendUnavailable
from dcrnn_fast.ops import dispatch
from dcrnn_fast.ops.registry import register
from dcrnn_fast.support.accuracy import CEILING, relative_error

from .backend import every_gradient, on
from .precision import assert_as_exact_as_plain_pytorch, cast, results
from .problems import cross_arguments

pytestmark = on("triton")

NAMES = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context")
PROJECTIONS = ("shared_projection", "private_projection")


def errors(backend, steps, rank=None, rows=24):
    """The relative errors of the output and of the gradients of x0, the context and the weights, in tf32, against float64."""
    arguments = cross_arguments(batch=rows, dim=96, steps=steps, context_dim=40, seed=steps, rank=rank, projection_share_ratio=0.5)
    seed = torch.randn(2, rows, 96, dtype=torch.float64)
    exact = cast(arguments, torch.float64)
    names = NAMES if rank is None else (*NAMES, *PROJECTIONS)
    leaves = [exact[name].requires_grad_() for name in names]
    out = reference.cross_rnn(**exact)
    expected = [out.detach(), *torch.autograd.grad(out, leaves, seed)]
    given = backend.of(cast(arguments, torch.float32))
    with torch.no_grad():
        out, *saved = backend.forward(given, allow_tf32=True)
        got = backend.backward(given, seed.float().to(out.device), *saved, mask=every_gradient(given), allow_tf32=True)
    triples = zip(("out", *names), [out, *got], expected, strict=True)
    return {name: relative_error(one, right) for name, one, right in triples if "bias" not in name}


@pytest.mark.parametrize(("steps", "rank"), [(3, None), (6, None), (3, 24)], ids=["three steps", "six steps", "low rank"])
def test_tf32_stays_well_below_its_ceiling(backend, steps, rank):
    for name, error in errors(backend, steps, rank).items():
        assert 1e-5 < error < CEILING["tf32"] / 2, f"{name}: relative error {error:.1e}"


UNROUNDED = "def to_tf32(x):\n", "def to_tf32(x):\n    return x\n\n\n@triton.jit\ndef rounded(x):\n"


@pytest.mark.parametrize("rank", [None, 24], ids=["full", "low rank"])
def test_without_rounding_the_errors_are_more_than_twice_as_large(backend, rank, tmp_path):
    right = errors(backend, 3, rank)
    for name, error in errors(replace(backend, namespace=mutant(tmp_path, "common.py", *UNROUNDED)[0]), 3, rank).items():
        assert error > 2 * right[name], f"{name}: {error:.1e} without rounding, {right[name]:.1e} with it"


def test_the_low_rank_cell_has_the_infinities_of_the_reference(backend):
    """Tiles are padded to more columns than the rank, where an infinity would become NaN."""
    arguments = cast(backend.of(cross_arguments(batch=20, dim=17, rank=1, steps=1, cell="cross")), torch.float32)
    clean = backend.cross_rnn(**arguments)
    arguments["x0"][3, 2] = torch.inf
    got, expected = backend.cross_rnn(**arguments), reference.cross_rnn(**arguments)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isinf(), expected.isinf())
    assert got.isinf().any()
    rest = [row for row in range(20) if row != 3]
    assert torch.equal(got[:, rest], clean[:, rest])


def test_a_rank_in_slices_gives_the_results_of_the_reference(backend, monkeypatch):
    """Rank 20 in two slices of 16 columns, the second of them a quarter full."""
    from dcrnn_fast.kernels import common

    arguments = backend.of(cross_arguments(batch=20, dim=18, steps=2, rank=20, context_dim=3, tied=False))
    seed = torch.randn(2, 20, 18, dtype=torch.float64, device=backend.device)
    expected = results(reference.cross_rnn, cast(arguments, torch.float64), seed)
    monkeypatch.setattr(common, "INTERPRETED_TILE", common.Tile(16, 16, 16, 4, 1))
    got = results(backend.cross_rnn, cast(arguments, torch.float64), seed)
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-11, atol=1e-11)


def test_a_rank_without_tiles_is_refused_in_words(backend):
    arguments = backend.of(cross_arguments(batch=2, dim=3, steps=1, rank=257))
    with pytest.raises(BackendUnavailable, match=r"no tiles of \w+ for rank 257 .* \(ranks go up to 256\)\. Use a lower rank"):
        backend.cross_rnn(**arguments)


FULL, LOW_RANK = "cross_rnn_backward.py", "low_rank.py"
STAGE = "    for start in range(0, columns, BLOCK_K):\n        k = start + tl.arange(0, BLOCK_K)\n        u = tl.load(left[:, None]"
PART = "    n = unit + tl.arange(0, acc.shape[1])\n    stored = inside(b, B, n, D)\n    at = b.to(tl.int64)"
SUM = ("rows[:, :, :num_shared].sum(0).to(dtype)", "rows[0, :, :num_shared].to(dtype)")
DEFECTS = {
    "a mask one column too wide": (None, "out", "common.py", STAGE, "    columns += 1\n" + STAGE),
    "other tasks left out of the sum": (None, "gradient of shared_weight", FULL, *SUM),
    "the derivative of the gate dropped": (None, "gradient of", FULL, "tl.fma(dg * x * a, 1.0 - g, 0.0)", "tl.fma(dg * x * a, 1.0, 0.0)"),
    "the gradient of later steps lost": (None, "gradient of", FULL, PART, "    later = later * 0\n" + PART),
    "low rank, another task's projection": (6, "out", LOW_RANK, "weight + D * G * (RANK + 1)", "parameters + D * G * (RANK + 1)"),
    "low rank, the projections left out of dh": (
        6, "gradient of", "low_rank_backward.py", "total = dot(z_gradient[i], tiles[i], total, PRECISION)", "total = total",
    ),
    "low rank, other tasks left out of the sum": (6, "gradient of shared_weight", FULL, *SUM),
}  # fmt: skip
"""The rank, what is found, the file, the text that stands once in it, and what takes its place."""


def mutant(folder, file=None, right="", wrong=""):
    """The operators of a copy of the kernels with a planted defect: their namespace and implementation."""
    from dcrnn_fast import kernels
    from dcrnn_fast.ops.triton import functions

    name = f"mutant_kernels_{len(sys.modules)}"
    copy = Path(shutil.copytree(Path(kernels.__file__).parent, folder / name, ignore=shutil.ignore_patterns("__pycache__")))
    if file is not None:
        text = (copy / file).read_text()
        assert text.count(right) == 1, f"{file} must hold this once: {right}"
        (copy / file).write_text(text.replace(right, wrong))
    spec = spec_from_file_location(name, copy / "__init__.py", submodule_search_locations=[str(copy)])
    sys.modules[name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    return name, register(name, functions(name))


def check(backend, rank, monkeypatch, *defect):
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "triton", mutant(*defect)[1])
    arguments = backend.of(cross_arguments(batch=20, dim=70, rank=rank, projection_share_ratio=0.5))
    assert_as_exact_as_plain_pytorch(arguments, torch.float32, backend="triton", draws=1)


@pytest.mark.parametrize(("rank", "found", "file", "right", "wrong"), DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_found(backend, rank, found, file, right, wrong, monkeypatch, tmp_path):
    with pytest.raises(AssertionError, match=found):
        check(backend, rank, monkeypatch, tmp_path, file, right, wrong)


@pytest.mark.parametrize("rank", [None, 6], ids=["full", "low rank"])
def test_a_copy_without_a_defect_passes(backend, rank, monkeypatch, tmp_path):
    check(backend, rank, monkeypatch, tmp_path)
