"""param_gather's backward in CUDA C++: the lists of places that it makes are longer, and more, than one block makes."""

import numpy as np
import pytest
import torch

from .backend import on

pytestmark = on("cuda")


@pytest.mark.parametrize(
    ("shared", "private", "rows", "below"),
    [
        pytest.param(1100, 1030, 700, 2130, id="more bank rows than a block owns"),
        pytest.param(3, 2, 3000, 5, id="many places for each bank row"),
        pytest.param(3, 2, 600, 1, id="one bank row is read by every place"),
        pytest.param(300, 0, 100, 300, id="no private rows"),
        pytest.param(0, 300, 100, 300, id="no shared rows"),
    ],
)
def test_many_gradients_are_added_by_task_then_by_row(backend, shared, private, rows, below):
    index = torch.randint(0, below, (2, rows), dtype=torch.int32)
    grad = torch.randn(2, rows, 2)
    want = np.zeros((shared + 2 * private, 2), dtype=np.float32)
    tasks = np.arange(2)[:, None]
    bank_rows = np.where(index.numpy() < shared, index.numpy(), index.numpy() + tasks * private)
    np.add.at(want, bank_rows, grad.numpy())  # one by one, in this order
    for _ in range(2):
        got = backend.operators.param_gather_backward(grad.to(backend.device), index.to(backend.device), shared, private)
        assert torch.equal(got[0].cpu(), torch.from_numpy(want[:shared]))
        assert torch.equal(got[1].cpu().flatten(0, 1), torch.from_numpy(want[shared:]))


def test_a_row_number_out_of_range_adds_to_no_bank_row(backend):
    index = torch.randint(0, 9, (2, 40), dtype=torch.int32, device=backend.device)
    grad = torch.randn(2, 40, 3, device=backend.device)
    stray = index.clone()
    stray[0, 3], stray[1, 8] = -1, 9
    without = grad.clone()
    without[0, 3], without[1, 8] = 0, 0
    got = backend.operators.param_gather_backward(grad, stray, 5, 4)
    for a, b in zip(got, backend.operators.param_gather_backward(without, index, 5, 4), strict=True):
        assert torch.equal(a, b)
