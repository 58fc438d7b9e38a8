"""What a launch promises the compiler: how far rows and addresses are aligned, and how float32 products are computed."""

import pytest
import torch

from dcrnn_fast.ops import backends

pytestmark = pytest.mark.skipif(backends.REASONS["triton"] is not None, reason=f"no Triton kernels here: {backends.REASONS['triton']}")


def test_a_bank_that_begins_between_two_boundaries_is_copied():
    from dcrnn_fast.kernels.common import aligned

    whole = torch.arange(64.0)
    for start, copied in ((0, False), (1, True), (2, True), (4, False)):
        bank = whole[start:]
        found = aligned(bank)
        assert torch.equal(found, bank)
        assert found.data_ptr() % 16 == 0
        assert (found.data_ptr() != bank.data_ptr()) == copied


def test_a_traced_bank_is_copied_as_its_place_in_its_storage_asks_for():
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dcrnn_fast.kernels.common import aligned

    with FakeTensorMode():
        whole = torch.zeros(64)
        assert aligned(whole) is whole
        assert aligned(whole[1:]).storage_offset() == 0


def test_only_float32_products_are_ever_rounded_to_tf32():
    from dcrnn_fast.kernels import common

    assert common.precision(torch.float32, True) == "tf32"
    assert common.precision(torch.float64, True) == "ieee"
    assert common.precision(torch.bfloat16, True) == "ieee"
    assert common.precision(torch.float32, False) == "ieee"
