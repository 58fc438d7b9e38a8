"""A prepared model gives what the model gives, and refuses what the model refuses, in the same words."""

import gc
import weakref

import pytest
import torch

import dcrnn_fast
from dcrnn_fast.ops import backends

FIELDS = {"user": 20, "item": 9, "tag": 9}
MODELS = {
    "default": {},
    "three tasks": {"tasks": ("click", "cart", "buy")},
    "one task": {"tasks": ("click",)},
    "full cell": {"rank": None},
    "untied, no gate": {"tied": False, "cell": "cross"},
    "hard sharing": {"share_ratio": 1.0},
    "no sharing": {"share_ratio": 0.0},
    "no towers": {"tower_dims": ()},
    "trunk": {"sharing": "trunk"},
    "scenarios": {"sharing": "trunk", "scenario": "tag"},
    "independent": {"relation": "independent"},
    "transfer": {"relation": "transfer"},
    "projected numbers": {"dense_bins": 0},
    "no numbers": {"num_dense": 0},
    "numbers alone": {"num_embeddings": {}},
    "shared and pooled": {"shared_embeddings": {"tag": "item"}, "pooled": {"both": {"columns": ["item", "tag"], "pooling": "mean"}}},
    "reference": {"backend": "reference"},
    "sampled rows": {"negative_rate": 0.1},
    "sampled rows of one task": {"negative_rate": 0.1, "tasks": ("click",)},
}


def made(dtype=torch.float32, negative_rate=1.0, **options):
    torch.manual_seed(0)
    options = {"num_embeddings": FIELDS, "num_dense": 2, "rank": 4, "dense_bins": 5, "embedding_dim": 4, "tower_dims": (8, 5)} | options
    model = dcrnn_fast.DCRNN(options.pop("num_embeddings"), dtype=dtype, **options).eval()
    model.negative_rate = negative_rate
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    return model


def rows(model, batch=33):
    generator = torch.Generator().manual_seed(1)
    ids = torch.empty(batch, len(model.num_embeddings), dtype=torch.int64)
    for column, size in enumerate(model.num_embeddings):
        ids[:, column] = torch.randint(0, size, (batch,), generator=generator)
    dense = (
        torch.randn(batch, model.num_dense, generator=generator, dtype=model.features.embedding.weight.dtype) if model.num_dense else None
    )
    return ids, dense


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_logits_and_probabilities_are_the_models(options):
    model = made(torch.float64, **options)
    prepared, (ids, dense) = model.prepare_inference(), rows(model)
    torch.testing.assert_close(prepared(ids, dense), model(ids, dense).detach(), rtol=1e-10, atol=1e-10)
    expected, found = model.predict(ids, dense), prepared.predict(ids, dense)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == torch.float32, name
        torch.testing.assert_close(found[name], values, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_small_batches_are_computed(batch):
    model = made()
    ids, dense = rows(model, batch)
    torch.testing.assert_close(model.prepare_inference()(ids, dense), model(ids, dense).detach())


def test_a_later_event_is_never_more_likely_than_an_earlier_one():
    model = made(tasks=("click", "cart", "buy"))
    found = model.prepare_inference().predict(*rows(model, 500))
    assert bool((found["cart"] <= found["click"]).all())
    assert bool((found["buy"] <= found["cart"]).all())


def test_a_model_in_bfloat16_stays_in_bfloat16():
    model = made(torch.bfloat16)
    ids, dense = rows(model)
    found = model.prepare_inference()(ids, dense)
    torch.testing.assert_close(found, model(ids, dense).detach(), rtol=0.05, atol=0.05)


def test_autocast_and_training_mode_change_nothing_and_record_no_gradient():
    model = made(dropout=0.9)
    ids, dense = rows(model)
    expected = model(ids, dense).detach()
    prepared = model.train().prepare_inference()
    with torch.autocast("cpu", torch.bfloat16):
        found = prepared(ids, dense)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


@pytest.mark.parametrize(
    "change",
    [
        lambda ids, dense: (ids.float(), dense),
        lambda ids, dense: (ids[0], dense),
        lambda ids, dense: (ids[:, :2], dense),
        lambda ids, dense: (ids.index_fill(1, torch.tensor([1]), 9), dense),
        lambda ids, dense: (ids.index_fill(1, torch.tensor([2]), -1), dense),
        lambda ids, dense: (ids.tolist(), dense),
        lambda ids, dense: (ids, None),
        lambda ids, dense: (ids, dense.long()),
        lambda ids, dense: (ids, dense[:3]),
        lambda ids, dense: (ids, dense.index_fill(1, torch.tensor([1]), float("nan"))),
        lambda ids, dense: (ids, dense.tolist()),
    ],
)
def test_what_the_model_refuses_is_refused_in_the_same_words(change):
    model = made()
    wrong = change(*rows(model))
    with pytest.raises((TypeError, ValueError, IndexError)) as expected:
        model(*wrong)
    with pytest.raises(expected.type) as found:
        model.prepare_inference()(*wrong)
    assert str(found.value) == str(expected.value)


@pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")
def test_an_operator_that_fails_is_an_error_and_no_other_way_is_taken():
    model = made()
    prepared = model.prepare_inference()
    table, first_order, packed = prepared._request._tables
    prepared._request._tables = table, first_order, packed[:-64]
    for call in (prepared, prepared.predict):
        with pytest.raises((RuntimeError, ValueError), match="packed: got"):  # a RuntimeError in PyTorch 2.15
            call(*rows(model))


def test_numbers_in_another_dtype_have_the_logits_of_the_model():
    model = made()
    prepared, (ids, dense) = model.prepare_inference(), rows(model)
    for other in (dense.double(), dense.bfloat16()):
        assert torch.equal(prepared(ids, other), model(ids, other))


def test_a_model_in_training_mode_drops_no_ids_of_requests():
    pooled = {"t": {"columns": ["t0", "t1"], "pooling": "mean"}}
    model = dcrnn_fast.DCRNN({"a": 50, "t0": 7, "t1": 7}, shared_embeddings={"t1": "t0"}, pooled=pooled, rank=None)
    model.features.id_dropout = torch.zeros_like
    ids = torch.tensor([[3, 4, 5]])
    expected = model.eval().predict(ids)["click"]
    torch.testing.assert_close(model.train().prepare_inference().predict(ids)["click"], expected)


def test_tables_go_with_the_last_prepared_model():
    model = dcrnn_fast.DCRNN([5, 6])
    prepared, table = model.prepare_inference(), weakref.ref(model.features.embedding)
    prepared.predict(torch.tensor([[1, 2]]))
    gc.disable()
    try:
        del model, prepared
        assert table() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("device", ["meta", "cuda"])  # without a GPU, what is made on cuda is an error
def test_another_default_device_changes_nothing(device):
    model, ids = dcrnn_fast.DCRNN([5, 6]), torch.tensor([[3, 4]])
    with torch.device(device):
        prepared = model.prepare_inference()
        assert torch.equal(prepared(ids), prepared(ids.clone()))
