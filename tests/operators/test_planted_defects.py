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
    "a private row from its second value on": ("bank_rows", "out"),
    "other tasks left out of the sum": ("of_banks", "gradient of shared_weight"),
    "a step left out of the sum": ("input_products", "gradient of shared_weight"),
    "the derivative of the gate dropped": ("gate_gradient", "gradient of"),
    "the end of a product left out of dh": ("add_gradient_product", "gradient of"),
    "x0's gradient of a task lost": ("x0_rest", "gradient of x0"),
    "the gradient of later steps lost": ("gate_part", "gradient of"),
}

LOW_RANK_DEFECTS = {
    "a column of the rank left out": ("weight_tiles", "out"),
    "another task's projection": ("of_step", "out"),
    "the gate's part of dz left out": ("add_slices", "gradient of"),
    "the projections left out of dh": ("add_gradient", "gradient of"),
    "other tasks left out of the sum": ("of_banks", "gradient of shared_weight"),
    "a step left out of the sum": ("input_products", "gradient of shared_projection"),
    "the derivative of the gate dropped": ("gate_gradient", "gradient of"),
    "a mask one unit too narrow": ("inside", "out"),
}


def check(backend, name, monkeypatch, **rank):
    from .mutants import mutant

    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "triton", mutant(name)[1])
    arguments = backend.of(cross_arguments(batch=20, dim=70, **rank))
    assert_as_exact_as_plain_pytorch(arguments, torch.float32, backend="triton", draws=1)


@pytest.mark.parametrize(("name", "found"), DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_found(backend, name, found, monkeypatch):
    with pytest.raises(AssertionError, match=found):
        check(backend, name, monkeypatch)


@pytest.mark.parametrize(("name", "found"), LOW_RANK_DEFECTS.values(), ids=LOW_RANK_DEFECTS)
def test_a_planted_defect_in_the_low_rank_kernels_is_found(backend, name, found, monkeypatch):
    with pytest.raises(AssertionError, match=found):
        check(backend, name, monkeypatch, rank=6, projection_share_ratio=0.5)


@pytest.mark.parametrize("rank", [None, 6], ids=["full", "low rank"])
def test_a_copy_without_a_defect_passes(backend, rank, monkeypatch):
    check(backend, None, monkeypatch, rank=rank, projection_share_ratio=0.5)
