"""Planted defects in the Triton kernels, each of which the check of exactness must find."""

import pytest
import torch

from dcrnn_fast.ops import dispatch

from .backend import on
from .precision import assert_as_exact_as_plain_pytorch
from .problems import cross_arguments

pytestmark = on("triton")

DEFECTS = {
    "a mask one column too wide": ("add_product", "out"),
    "a mask one unit too narrow": ("inside", "out"),
    "another task's private row": ("bank_rows", "out"),
    "the readers of other tasks left out": ("param_gather_readers", "gradient of shared_weight"),
    "a step left out of the sum": ("param_gather_sum", "gradient of shared_weight"),
    "the derivative of the gate dropped": ("_dq", "gradient of"),
    "the end of a product left out of dh": ("add_gradient_product", "gradient of"),
    "x0's gradient of the steps lost": ("add_dx0", "gradient of x0"),
    "x0's gradient of the later steps overwritten": ("_gate", "gradient of x0", True),
}

LOW_RANK_DEFECTS = {
    "a column of the rank left out": ("weight_tiles", "out"),
    "another task's projection": ("of_task", "out"),
    "the gate's part of dz left out": ("_add_slices", "gradient of"),
    "the projections left out of dh": ("add_gradient", "gradient of"),
    "a step left out of the sum": ("param_gather_sum", "gradient of shared_weight"),
    "the derivative of the gate dropped": ("_dq", "gradient of"),
    "a mask one unit too narrow": ("inside", "out"),
}


def check(backend, implementation, monkeypatch, recompute=False, **rank):
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "triton", implementation)
    arguments = backend.of(cross_arguments(batch=20, dim=70, **rank))
    assert_as_exact_as_plain_pytorch(arguments, torch.float32, backend="triton", draws=1, recompute=recompute)


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_found(backend, defect, monkeypatch):
    from .mutants import mutant

    name, found, *recompute = defect
    with pytest.raises(AssertionError, match=found):
        check(backend, mutant(name), monkeypatch, *recompute)


@pytest.mark.parametrize("defect", LOW_RANK_DEFECTS.values(), ids=LOW_RANK_DEFECTS)
def test_a_planted_defect_in_the_low_rank_kernels_is_found(backend, defect, monkeypatch):
    from .mutants import mutant

    name, found = defect
    with pytest.raises(AssertionError, match=found):
        check(backend, mutant(name), monkeypatch, rank=6, projection_share_ratio=0.5)


@pytest.mark.parametrize("rank", [None, 6], ids=["full", "low rank"])
def test_a_copy_without_a_defect_passes(backend, rank, monkeypatch):
    from .mutants import mutant

    check(backend, mutant(), monkeypatch, rank=rank, projection_share_ratio=0.5)
