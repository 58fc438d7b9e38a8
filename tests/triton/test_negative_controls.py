"""Planted defects in the Triton kernels that the check of exactness must find."""

import pytest
import torch

from dcrnn_fast import backends, functional

from ..core.precision import assert_as_exact_as_plain_pytorch
from ..core.problems import cross_arguments
from .mutants import mutant

pytestmark = pytest.mark.skipif(backends.REASONS["triton"] is not None, reason=f"no Triton kernels here: {backends.REASONS['triton']}")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

FORWARD, BACKWARD, TILES = "cross_rnn_forward.py", "cross_rnn_backward.py", "tiles.py"
DEFECTS = {
    "a mask one column too wide": (TILES, "mask=(k < columns)[None, :]", "mask=(k <= columns)[None, :]", "out"),
    "a mask one unit too narrow": (FORWARD, "(d < D)[None, :]", "(d < D - 1)[None, :]", "out"),
    "another task's private row": (TILES, "own = task * num_private + row - num_shared", "own = row - num_shared", "out"),
    "the derivative of the gate dropped": (BACKWARD, "tl.fma(dg * x * a, 1.0 - g, 0.0)", "tl.fma(dg * x * a, 1.0, 0.0)", "gradient of"),
    "the gate's product left out of dh": (BACKWARD, "range(0, G * D, BLOCK_K)", "range(0, D, BLOCK_K)", "gradient of"),
    "x0's gradient of the later steps lost": (BACKWARD, "if ADD:", "if False:", "gradient of x0"),
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_found(defect, tmp_path, monkeypatch):
    *place, found = defect
    monkeypatch.setitem(functional._CROSS_RNN, "triton", mutant(tmp_path, *place).cross_rnn)
    torch.use_deterministic_algorithms(True)  # new memory holds NaN
    arguments = {n: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for n, v in cross_arguments(batch=20, dim=70).items()}
    try:
        with pytest.raises(AssertionError, match=found):
            assert_as_exact_as_plain_pytorch(arguments, torch.float32, backend="triton", draws=1)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_copy_without_a_defect_passes(tmp_path, monkeypatch):
    same = "own = task * num_private + row - num_shared"
    monkeypatch.setitem(functional._CROSS_RNN, "triton", mutant(tmp_path, "tiles.py", same, same).cross_rnn)
    arguments = {n: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for n, v in cross_arguments(batch=20, dim=70).items()}
    assert_as_exact_as_plain_pytorch(arguments, torch.float32, backend="triton", draws=1)
