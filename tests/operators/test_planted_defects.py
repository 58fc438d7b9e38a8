"""Planted defects in the Triton kernels, each of which the check of exactness must find."""

import pytest
import torch

from dcrnn_fast.ops import dispatch

from .backend import on
from .precision import assert_as_exact_as_plain_pytorch
from .problems import cross_arguments

pytestmark = on("triton")

DEFECTS = {
    "a mask one column too wide": (None, "add_product", "out"),
    "other tasks left out of the sum": (None, "of_banks", "gradient of shared_weight"),
    "the derivative of the gate dropped": (None, "gate_gradient", "gradient of"),
    "the gradient of later steps lost": (None, "gate_part", "gradient of"),
    "low rank, another task's projection": (6, "of_step", "out"),
    "low rank, the projections left out of dh": (6, "add_gradient", "gradient of"),
    "low rank, other tasks left out of the sum": (6, "of_banks", "gradient of shared_weight"),
}


def check(backend, rank, name, monkeypatch):
    from .mutants import mutant

    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "triton", mutant(name)[1])
    arguments = backend.of(cross_arguments(batch=20, dim=70, rank=rank, projection_share_ratio=0.5))
    assert_as_exact_as_plain_pytorch(arguments, torch.float32, backend="triton", draws=1)


@pytest.mark.parametrize(("rank", "name", "found"), DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_found(backend, rank, name, found, monkeypatch):
    with pytest.raises(AssertionError, match=found):
        check(backend, rank, name, monkeypatch)


@pytest.mark.parametrize("rank", [None, 6], ids=["full", "low rank"])
def test_a_copy_without_a_defect_passes(backend, rank, monkeypatch):
    check(backend, rank, None, monkeypatch)
