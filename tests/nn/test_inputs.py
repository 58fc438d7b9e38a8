"""Bad input to a model: one error that names the argument or field, what came, and what was expected."""

import pytest
import torch

from dcrnn_fast import DCRNN, checked, reference
from tests.nn.models import SIZES, batch

NAN, INF = float("nan"), float("inf")
zeros = torch.zeros


@pytest.fixture
def model():
    return DCRNN(SIZES, embedding_dim=4, num_dense=2).eval()


@pytest.mark.parametrize("stray", [-1, 11, 2**40])
def test_an_id_out_of_range_is_an_index_error_with_the_fields_name(model, stray):
    ids, dense, _ = batch(num_dense=2)
    ids[5, 1] = stray
    with pytest.raises(IndexError, match=rf"field 'item' \(column 1\) has id {stray}, expected \[0, 11\)"):
        model(ids, dense)


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


BAD_BATCHES = {
    "no ids": (lambda ids, dense: (None, dense), TypeError, "ids: got NoneType"),
    "a list of ids": (lambda ids, dense: (ids.tolist(), dense), TypeError, "ids: got list"),
    "float ids": (lambda ids, dense: (ids.float(), dense), TypeError, "ids: got dtype torch.float32, expected torch.int64"),
    "bool ids": (lambda ids, dense: (ids > 0, dense), TypeError, "ids: got dtype torch.bool"),
    "a field too few": (lambda ids, dense: (ids[:, :2], dense), ValueError, r"ids: got shape \[9, 2\], expected \[B, 3\]"),
    "a field too many": (lambda ids, dense: (torch.cat([ids, ids], 1), dense), ValueError, r"ids: got shape \[9, 6\]"),
    "one-dimensional ids": (lambda ids, dense: (ids[0], dense), ValueError, r"ids: got shape \[3\]"),
    "no dense": (lambda ids, dense: (ids, None), ValueError, "dense: got None"),
    "integer dense": (lambda ids, dense: (ids, dense.long()), TypeError, "dense: got dtype torch.int64"),
    "dense of another width": (lambda ids, dense: (ids, dense[:, :1]), ValueError, r"dense: got shape \[9, 1\], expected \[9, 2\]"),
    "dense of another batch": (lambda ids, dense: (ids, dense[:4]), ValueError, r"dense: got shape \[4, 2\], expected \[9, 2\]"),
}


@pytest.mark.parametrize(("spoil", "error", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_malformed_batch_is_refused(model, spoil, error, message):
    ids, dense, _ = batch(num_dense=2)
    with pytest.raises(error, match=message):
        model(*spoil(ids, dense))


def test_dense_for_a_model_without_dense_features_is_refused():
    ids, dense, _ = batch(num_dense=2)
    with pytest.raises(ValueError, match="expected None; the model was built with num_dense=0"):
        DCRNN(SIZES)(ids, dense)


BAD_LABELS = {
    "no tensor": (zeros(9, 2), None, TypeError, "labels: got NoneType, expected a tensor"),
    "integer": (zeros(9, 2), zeros(9, 2).long(), TypeError, "labels: got dtype torch.int64"),
    "another shape": (zeros(9, 2), zeros(9, 1), ValueError, r"labels: got shape \[9, 1\], expected \[9, 2\]"),
    "above one": (zeros(9, 2), zeros(9, 2) + 1.5, ValueError, r"labels: got a value outside \[0, 1\]"),
    "infinite": (zeros(9, 2), zeros(9, 2) + INF, ValueError, r"labels: got a value outside \[0, 1\]"),
    "minus infinite": (zeros(9, 2), zeros(9, 2) - INF, ValueError, r"labels: got a value outside \[0, 1\]"),
    "below zero": (zeros(9, 2), zeros(9, 2) - 0.5, ValueError, r"labels: got a value outside \[0, 1\]"),
    "another number of tasks": (zeros(9, 3), zeros(9, 3), ValueError, r"logits: got shape \[9, 3\], expected \[B, 2\]"),
    "empty batch": (zeros(0, 2), zeros(0, 2), ValueError, "labels: got an empty batch"),
}


@pytest.mark.parametrize(("logits", "labels", "error", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_malformed_labels_are_refused(model, logits, labels, error, message):
    with pytest.raises(error, match=message):
        model.loss(logits, labels)


@pytest.mark.parametrize("labels", [[NAN, 1.0], [0.0, NAN]])
def test_an_unknown_label_breaks_no_funnel(model, labels):
    assert torch.isfinite(model.loss(zeros(1, 2), torch.tensor([labels])))


@pytest.mark.parametrize(("relation", "strict"), [("chain", False), ("independent", True), ("transfer", True)])
def test_a_consume_without_a_click_is_taken_without_the_chain_or_when_the_funnel_is_not_strict(relation, strict):
    model = DCRNN(SIZES, embedding_dim=4, relation=relation)
    assert torch.isfinite(model.loss(zeros(1, 2), torch.tensor([[0.0, 1.0]]), strict_funnel=strict))


@pytest.fixture
def whole():
    """A batch with labels and weights, which the model takes."""
    ids, dense, labels = batch(num_dense=2)
    return {"ids": ids, "dense": dense, "labels": labels, "sample_weight": torch.ones(9)}


STRAY = {
    "an id": ("ids", 99, IndexError, r"field 'item' \(column 1\) has id 99"),
    "a number": ("dense", NAN, ValueError, "dense: column 1 holds NaN"),
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


def test_labels_of_another_shape_are_refused_before_the_block(model, whole):
    with (
        pytest.raises(ValueError, match=r"labels: got shape \[9, 1\], expected \[9, 2\]"),
        checked(model, **whole | {"labels": zeros(9, 1)}),
    ):
        pytest.fail("the block began")


def test_another_model_is_refused(whole):
    with pytest.raises(TypeError, match=r"model: got Embedding, expected a DCRNN"), checked(torch.nn.Embedding(2, 2), whole["ids"]):
        pytest.fail("the block began")
