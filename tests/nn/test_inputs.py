"""What a model reads and what `checked` checks before; what both refuse stands in test_refusals.py."""

from math import nan

import pytest
import torch

from dcrnn_fast import DCRNN, checked, reference
from tests.nn.models import SIZES, batch


@pytest.fixture
def model():
    return DCRNN(SIZES, embedding_dim=4, num_dense=2).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_graph_reads_no_row_of_another_field():
    """Its check saw the ids that it was traced with."""
    model, ids = DCRNN(SIZES, embedding_dim=4).eval(), batch()[0]
    traced = torch.jit.trace(model, ids, check_trace=False)
    assert torch.equal(traced(ids), model(ids))
    ids[5, 1] = 11
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        traced(ids)


def test_int32_ids_mean_the_same_as_int64(model):
    ids, dense, _ = batch(num_dense=2)
    assert torch.equal(model(ids.int(), dense), model(ids, dense))


@pytest.mark.parametrize("labels", [[nan, 1.0], [0.0, nan]])
def test_an_unknown_label_breaks_no_funnel(model, labels):
    assert torch.isfinite(model.loss(torch.zeros(1, 2), torch.tensor([labels])))


@pytest.mark.parametrize(("relation", "strict"), [("chain", False), ("independent", True), ("transfer", True)])
def test_a_consume_without_a_click_is_taken_where_no_funnel_is_strict(relation, strict):
    model = DCRNN(SIZES, embedding_dim=4, relation=relation)
    assert torch.isfinite(model.loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), strict_funnel=strict))


@pytest.fixture
def whole():
    """A batch with labels and weights, which the model takes."""
    ids, dense, labels = batch(num_dense=2)
    return {"ids": ids, "dense": dense, "labels": labels, "sample_weight": torch.ones(9)}


STRAY = {
    "an id": ("ids", 99, IndexError, r"field 'item' \(column 1\) has id 99"),
    "a number": ("dense", nan, ValueError, "dense: column 1 holds NaN"),
    "a label": ("labels", 2.0, ValueError, r"labels: got a value outside \[0, 1\]"),
    "a weight": ("sample_weight", -1.0, ValueError, "sample_weight: got a negative"),
}


@pytest.mark.parametrize(("name", "value", "error", "message"), STRAY.values(), ids=STRAY)
def test_a_batch_is_checked_before_it_goes_to_the_device(model, whole, name, value, error, message):
    whole[name].select(-1, 1).fill_(value)
    with pytest.raises(error, match=message), checked(model, **whole):
        pytest.fail("the block began")


@pytest.mark.parametrize("kind", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
def test_what_was_checked_is_not_read_again_and_gives_the_same_loss(kind, whole):
    model = kind(SIZES, embedding_dim=4, num_dense=2).eval()

    def loss(ids, dense, labels, sample_weight):
        return model.loss(model(ids, dense), labels, sample_weight=sample_weight)

    expected, looked = loss(**whole), []
    with checked(model, **whole), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", lambda value: looked.append(value))
        patch.setattr(torch.Tensor, "__bool__", lambda value: looked.append(value))
        found = loss(**whole)
    assert torch.equal(found, expected)
    assert not looked
    whole["ids"][5, 1] = 99
    with pytest.raises(IndexError, match="field 'item'"):
        loss(**whole)
