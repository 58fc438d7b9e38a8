"""What a launch promises the compiler: how far rows and addresses are aligned, and how float32 products are computed."""

import pytest
import torch

from dcrnn_fast.ops import backends

pytestmark = pytest.mark.skipif(backends.REASONS["triton"] is not None, reason=f"no Triton kernels here: {backends.REASONS['triton']}")


def alignment(sizes, *banks):
    from dcrnn_fast.kernels import common

    return common.alignment(sizes, *banks)


@pytest.mark.parametrize(
    ("sizes", "dtype", "expected"),
    [
        ((624, 0), torch.bfloat16, 16),
        ((312, 312), torch.bfloat16, 16),
        ((12, 312), torch.bfloat16, 8),
        ((33, 0), torch.bfloat16, 2),
        ((33, 0), torch.float32, 4),
        ((2, 0), torch.float64, 16),
    ],
    ids=str,
)
def test_rows_are_aligned_as_their_sizes_are(sizes, dtype, expected):
    assert alignment(sizes, torch.zeros(64, dtype=dtype)) == expected


def test_a_bank_that_begins_between_two_boundaries_is_aligned_less():
    whole = torch.zeros(64)
    assert alignment((16,), whole, whole[1:]) == 4
    assert alignment((16,), whole, whole[2:]) == 8


def test_a_traced_bank_is_aligned_as_its_place_in_its_storage_is():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        whole = torch.zeros(64)
        assert alignment((16,), whole) == 16
        assert alignment((16,), whole[1:]) == 4


def test_only_float32_products_are_ever_rounded_to_tf32():
    from dcrnn_fast.kernels import common

    assert common.precision(torch.float32, True) == "tf32"
    assert common.precision(torch.float64, True) == "ieee"
    assert common.precision(torch.bfloat16, True) == "ieee"
    assert common.precision(torch.float32, False) == "ieee"
