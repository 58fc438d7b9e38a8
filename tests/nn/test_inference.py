"""A prepared model gives what the model gives, and refuses what the model refuses, in the same words."""

import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dcrnn_fast
from dcrnn_fast.nn import inference
from dcrnn_fast.nn.lookup import lookup
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
}


def made(dtype=torch.float32, **options):
    torch.manual_seed(0)
    options = {"num_embeddings": FIELDS, "num_dense": 2, "rank": 4, "dense_bins": 5, "embedding_dim": 4, "tower_dims": (8, 5)} | options
    model = dcrnn_fast.DCRNN(options.pop("num_embeddings"), dtype=dtype, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    return model


def rows(model, batch=33):
    generator = torch.Generator().manual_seed(1)
    ids = torch.empty(batch, len(model.num_embeddings), dtype=torch.int64)
    for column, size in enumerate(model.num_embeddings):
        ids[:, column] = torch.randint(0, size, (batch,), generator=generator)
    dense = torch.randn(batch, model.num_dense, generator=generator, dtype=model.embedding.weight.dtype) if model.num_dense else None
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


@pytest.mark.parametrize("options", [{}, {"tasks": ("click",)}])
def test_a_rate_of_negatives_is_corrected_as_by_the_model(options):
    model = made(torch.float64, **options)
    model.negative_rate = 0.1
    ids, dense = rows(model)
    for name, values in model.prepare_inference().predict(ids, dense).items():
        torch.testing.assert_close(values, model.predict(ids, dense)[name], rtol=1e-6, atol=1e-12, msg=name)


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


def test_autocast_and_a_model_in_training_mode_change_nothing():
    model = made(dropout=0.9)
    ids, dense = rows(model)
    expected = model(ids, dense).detach()
    prepared = model.train().prepare_inference()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(prepared(ids, dense), expected)


def test_no_gradient_is_recorded():
    model = made()
    assert not model.prepare_inference()(*rows(model)).requires_grad


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


def candidates(model, count=17, item_fields=("tag", "item"), item_numbers=(1,)):
    """One user's ids and numbers, those of items, and the rows that repeat the user."""
    ids, dense = rows(model, count)
    of_items = [model.field_names.index(field) for field in item_fields]
    of_user = [place for place in range(ids.shape[1]) if place not in of_items]
    ids[:, of_user] = ids[:1, of_user]
    parts = {"user_ids": ids[0, of_user], "item_ids": ids[:, of_items]}
    if dense is not None:
        numbers = [place for place in range(dense.shape[1]) if place not in item_numbers]
        dense[:, numbers] = dense[:1, numbers]
        parts |= {"user_dense": dense[0, numbers], "item_dense": dense[:, list(item_numbers)]}
    return {**parts, "item_fields": item_fields, "item_numbers": item_numbers if dense is not None else ()}, (ids, dense)


WITH_ITEMS = {name: options for name, options in MODELS.items() if name != "numbers alone"}


@pytest.mark.parametrize("options", WITH_ITEMS.values(), ids=WITH_ITEMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_user_and_many_items_have_the_bits_of_rows_that_repeat_the_user(options, dtype):
    model = made(dtype, **options)
    prepared = model.prepare_inference()
    parts, whole = candidates(model)
    found, expected = prepared.score(**parts), prepared.predict(*whole)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


@pytest.mark.parametrize("items", [("user",), ("item", "user", "tag"), ()], ids=str)
@pytest.mark.parametrize("numbers", [(), (1, 0), (0,)], ids=str)
def test_the_items_may_have_any_of_the_columns(items, numbers):
    model = made()
    prepared = model.prepare_inference()
    parts, whole = candidates(model, item_fields=items, item_numbers=numbers)
    assert torch.equal(prepared.score(**parts)["click"], prepared.predict(*whole)["click"])


def test_numbers_that_nobody_has_may_be_left_out_and_no_items_have_no_scores():
    model = made()
    prepared = model.prepare_inference()
    parts, whole = candidates(model, item_numbers=())
    assert torch.equal(prepared.score(**{**parts, "item_dense": None})["click"], prepared.predict(*whole)["click"])
    assert prepared.score(**candidates(model, 0 + 1)[0] | {"item_ids": torch.zeros(0, 2).long(), "item_dense": torch.zeros(0, 1)})[
        "click"
    ].shape == (0,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"item_fields": ("tag", "colour")}, ValueError, "item_fields: a field='colour'"),
        ({"item_fields": "tag"}, TypeError, "item_fields='tag': expected a sequence"),
        ({"item_fields": ("tag", "tag")}, ValueError, "expected each one once"),
        ({"item_numbers": (2,)}, ValueError, "item_numbers: a column of dense=2: expected at most 1"),
        ({"item_numbers": ()}, ValueError, r"user_dense: got shape \[1\], expected \[2\]"),
        ({"user_ids": torch.tensor([1, 2])}, ValueError, r"user_ids: got shape \[2\], expected \[1\]"),
        ({"user_ids": [1]}, TypeError, "user_ids: got list, expected a tensor"),
        ({"user_ids": torch.tensor([20])}, IndexError, r"field 'user' \(column 0\) has id 20"),
        ({"item_ids": torch.tensor([1, 2])}, ValueError, r"item_ids: got shape \[2\], expected \[N, 2\]"),
        ({"item_ids": torch.full((17, 2), -1)}, IndexError, "field 'item' .* has id -1"),
        ({"item_ids": torch.zeros(17, 2)}, TypeError, "ids: got dtype torch.float32"),
        ({"item_dense": None}, TypeError, "item_dense: got NoneType"),
        ({"item_dense": torch.zeros(16, 1)}, ValueError, r"item_dense: got shape \[16, 1\], expected \[17, 1\]"),
        ({"item_dense": torch.full((17, 1), float("inf"))}, ValueError, "dense: column 1 holds NaN or infinity"),
    ],
)
def test_what_does_not_fit_one_user_and_many_items_is_named(change, error, message):
    model = made()
    with pytest.raises(error, match=message):
        model.prepare_inference().score(**{**candidates(model)[0], **change})


on_cpp = pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")


@on_cpp
def test_an_operator_that_fails_is_an_error_and_no_other_way_is_taken(monkeypatch):
    model = made()
    right = lookup(model)
    wrong = right._replace(sizes=right.sizes.int())  # the operator refuses them, and the model would not read them
    monkeypatch.setattr(inference, "lookup", lambda model: wrong)
    prepared = model.prepare_inference()
    for call in (lambda: prepared(*rows(model)), lambda: prepared.score(**candidates(model)[0])):
        with pytest.raises((RuntimeError, ValueError), match="sizes: got dtype"):  # a RuntimeError in PyTorch 2.15
            call()


def test_numbers_in_another_dtype_than_the_operators_are_computed_by_the_model():
    model = made()
    prepared, (ids, dense) = model.prepare_inference(), rows(model)
    for other in (dense.double(), dense.bfloat16()):
        assert torch.equal(prepared._inputs(ids, other)[0], model.features(ids, other))


@on_cpp
def test_the_users_ids_are_looked_up_once():
    """Of 17 items with two fields, the operator reads 17 rows of two ids, and one row of the user's one id."""
    read = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.dcrnn_fast.features.default:
                read.append(list(args[0].shape))
            return function(*args, **(kwargs or {}))

    model = made()
    prepared = model.prepare_inference()
    with Record():
        prepared.score(**candidates(model)[0])
    assert sorted(read) == [[1, 1], [17, 2]]


def test_a_model_in_training_mode_drops_no_ids_of_requests():
    pooled = {"t": {"columns": ["t0", "t1"], "pooling": "mean"}}  # which the model looks up itself
    model = dcrnn_fast.DCRNN({"a": 50, "t0": 7, "t1": 7}, shared_embeddings={"t1": "t0"}, pooled=pooled)
    model.id_dropout = torch.zeros_like
    ids = torch.tensor([[3, 4, 5]])
    expected = model.eval().predict(ids)["click"]
    torch.testing.assert_close(model.train().prepare_inference().predict(ids)["click"], expected)


def test_tables_go_with_the_last_prepared_model_without_the_cyclic_collector():
    model = dcrnn_fast.DCRNN([5, 6])
    prepared, table = model.prepare_inference(), weakref.ref(model.embedding)
    prepared.score(torch.tensor([1]), torch.tensor([[2]]), item_fields=["1"])
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
