"""DCRNN: the same model on both sides of an import swap, and the probabilities of its events."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch

from dcrnn_fast import DCRNN, reference
from tests.nn.models import SIZES, batch

RELATIONS = ("chain", "independent", "transfer")


@pytest.mark.parametrize("relation", RELATIONS)
def test_predict_gives_the_events_and_under_the_chain_the_conditional(relation):
    model, ids = DCRNN(SIZES, embedding_dim=4, relation=relation).eval(), batch()[0]
    p = model.predict(ids)
    assert list(p) == ["click", "consume", *(["consume_given_click"] if relation == "chain" else [])]
    assert all(value.shape == (9,) and value.dtype == torch.float32 for value in p.values())
    torch.testing.assert_close(torch.stack([p["click"], p["consume"]], dim=1), torch.sigmoid(model(ids)))
    if relation == "chain":
        torch.testing.assert_close(p["click"] * p["consume_given_click"], p["consume"])


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_batch_and_a_batch_of_one_are_predicted(rows):
    ids, dense, _ = batch(rows, num_dense=2)
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2)
    assert model(ids, dense).shape == (rows, 2)
    assert model.predict(ids, dense)["click"].shape == (rows,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_loss_is_in_float32_or_better_whatever_the_models_dtype(dtype):
    model = DCRNN(SIZES, embedding_dim=4, dtype=dtype)
    ids, _, labels = batch()
    assert all(p.dtype == dtype for p in model.parameters())
    assert model.loss(model(ids), labels).dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("options", [{}, {"num_embeddings": [], "num_dense": 3}, {"sharing": "trunk", "scenario": "item"}], ids=str)
def test_autocast_computes_close_to_float32(options):
    model = DCRNN(**{"num_embeddings": SIZES, "embedding_dim": 8} | options).eval()
    ids, dense, _ = batch(64, num_dense=model.num_dense)
    ids = ids[:, : len(model.num_embeddings)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = model(ids, dense)
    torch.testing.assert_close(lower.float(), model(ids, dense), atol=0.05, rtol=0.05)


ARGUMENTS = [
    ({"num_embeddings": [7, 0]}, ValueError, r"num_embeddings\[1\]=0"),
    ({"num_embeddings": {"user": 2.5}}, TypeError, r"num_embeddings\['user'\]=2.5"),
    ({"num_embeddings": []}, ValueError, "at least one feature"),
    ({"num_embeddings": 5}, TypeError, "num_embeddings=5: expected a sequence"),
    ({"tower_dims": 64}, TypeError, "tower_dims=64: expected a sequence"),
    ({"tasks": 3}, TypeError, "tasks=3: expected a sequence"),
    ({"tasks": ("click", "")}, TypeError, "tasks"),
    ({"tasks": (1, 2)}, TypeError, "tasks"),
    ({"tasks": ("a", "b", "b_given_a")}, ValueError, "b_given_a"),
    ({"tied": "no"}, TypeError, "tied='no'"),
    ({"dropout": "a"}, TypeError, "dropout='a'"),
    ({"embedding_dim": 0}, ValueError, "embedding_dim=0"),
    ({"embedding_init_std": -0.01}, ValueError, r"embedding_init_std=-0\.01: expected a finite number of at least 0"),
    ({"embedding_init_std": float("inf")}, ValueError, "embedding_init_std=inf: expected a finite number"),
    ({"embedding_init_std": float("nan")}, ValueError, "embedding_init_std=nan: expected a finite number"),
    ({"embedding_init_std": "small"}, TypeError, "embedding_init_std='small': expected a finite number"),
    ({"num_dense": -1}, ValueError, "num_dense=-1"),
    ({"tasks": ()}, ValueError, "tasks"),
    ({"tasks": ("click", "click")}, ValueError, "tasks"),
    ({"steps": 0}, ValueError, "steps=0"),
    ({"cell": "lstm"}, ValueError, "cell='lstm'"),
    ({"sharing": "soft"}, ValueError, "sharing='soft'"),
    ({"share_ratio": 1.01}, ValueError, "share_ratio=1.01"),
    ({"share_ratio": "half"}, TypeError, "share_ratio='half'"),
    ({"rank": 0}, ValueError, "rank=0"),
    ({"tower_dims": (8, 0)}, ValueError, r"tower_dims\[1\]=0"),
    ({"dropout": 1.0}, ValueError, "dropout=1"),
    ({"relation": "tree"}, ValueError, "relation='tree'"),
    ({"backend": "tpu"}, ValueError, "backend='tpu'"),
]


@pytest.mark.parametrize("model", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
@pytest.mark.parametrize(("change", "error", "message"), ARGUMENTS, ids=[f"{a[0]}" for a in ARGUMENTS])
def test_an_argument_out_of_range_is_refused_by_name(change, error, message, model):
    arguments = {"num_embeddings": [7, 3], **change}
    with pytest.raises(error, match=message):
        model(**arguments)


def test_constructors_have_the_same_signature():
    assert inspect.signature(DCRNN) == inspect.signature(reference.DCRNN)


@pytest.mark.parametrize("how", ["reset", "load", "assign"])
@pytest.mark.parametrize(
    "options", [{"num_dense": 2, "relation": "transfer"}, {"rank": 3}, {"sharing": "trunk", "scenario": "hour", "rank": 3}], ids=str
)
def test_a_model_from_the_meta_device_is_whole_once_it_has_weights(options, how):
    options = options | {"embedding_dim": 4, "dropout": 0.0}
    whole, ids, dense = DCRNN(SIZES, **options), *batch(num_dense=options.get("num_dense", 0))[:2]
    with torch.device("meta" if how == "reset" else "cpu"):
        model = DCRNN(SIZES, **options, device=None if how == "reset" else "meta")
    assert all(t.device.type == "meta" for t in (*model.parameters(), *model.buffers()))
    if how == "reset":
        model.to_empty(device="cpu").reset_parameters()
        whole.load_state_dict(model.state_dict())
    else:
        (model.to_empty(device="cpu") if how == "load" else model).load_state_dict(whole.state_dict(), assign=how == "assign")
    assert torch.equal(model(ids, dense), whole(ids, dense))


def test_a_model_can_be_copied_and_pickled():
    model = DCRNN(SIZES, sharing="trunk", share_ratio=1.0).eval()
    ids = batch()[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 (its own bytes)
        assert torch.equal(twin(ids), model(ids))


@pytest.mark.parametrize("model", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
def test_a_model_of_numpy_sizes_compiles_to_one_graph(model):
    sizes = {"embedding_dim": 4, "steps": 2, "num_dense": 2, "dense_bins": 3, "rank": 2}
    options = {name: np.int64(size) for name, size in sizes.items()} | {"tower_dims": np.array([4]), "dropout": np.float32(0.1)}
    ids, dense, _ = batch(num_dense=2)
    assert torch.compile(model(SIZES, **options), backend="aot_eager", fullgraph=True)(ids, dense).shape == (9, 2)


@pytest.mark.parametrize("model", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
def test_sequences_may_be_generators(model):
    made = model(iter([5, 6]), tasks=iter(["a", "b"]), tower_dims=iter([3, 4]))
    assert (made.num_embeddings, made.tasks) == ((5, 6), ("a", "b"))
    assert [layer.private_bias.shape[1] for layer in made.towers.layers] == [3, 4]


def test_dropped_ids_change_the_embeddings_and_not_the_first_order_term():
    model, (ids, _, _) = DCRNN(SIZES, embedding_dim=4), batch()
    torch.nn.init.normal_(model.features.first_order.table.weight)
    model.features.id_dropout = torch.zeros_like
    in_training, of_zeros = model.features(ids), model.features(torch.zeros_like(ids))
    as_they_are = model.eval().features(ids)
    assert torch.equal(in_training.x0, of_zeros.x0)
    assert torch.equal(in_training.first_order, as_they_are.first_order)
    assert not torch.equal(in_training.x0, as_they_are.x0)
    ids[0, 1] = 11
    with pytest.raises(IndexError, match="'item'"):  # ids are checked before they are dropped
        model.train()(ids)
