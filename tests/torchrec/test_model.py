"""A DCRNN with torchrec's tables is the plain one."""

import pytest
import torch

pytest.importorskip("torchrec")

import dcrnn_fast
from dcrnn_fast.torchrec import DCRNN, shard, to_keyed_jagged_tensor

from .models import OPTIONS, SIZES, batch

CASES = {
    "chain, rows": {},
    "no numbers": {"num_dense": 0},
    "dense bins": {"dense_bins": 3},
    "transfer, trunk": {"relation": "transfer", "sharing": "trunk"},
    "scenarios": {"sharing": "trunk", "scenario": "shop.type", "cell": "cross"},
    "three tasks, untied": {"tasks": ("see", "click", "buy"), "tied": False, "relation": "independent"},
}


def both(**options):
    """A plain DCRNN, and one with torchrec's tables and its weights."""
    plain, model = (made(SIZES, **OPTIONS | options) for made in (dcrnn_fast.DCRNN, DCRNN))
    model.load_plain_state_dict(plain.state_dict())
    return plain.eval(), model.eval()


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_its_logits_and_weights_are_those_of_the_plain_model(options):
    plain, model = both(**options)
    ids, dense, _ = batch(50)
    features, dense = to_keyed_jagged_tensor(ids, model), dense if plain.num_dense else None
    torch.testing.assert_close(model(features, dense), plain(ids, dense), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.predict(features, dense), plain.predict(ids, dense), rtol=1e-6, atol=1e-6)
    found, expected = model.plain_state_dict(), plain.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items()), "weights go there and back with their bits"


def test_its_gradients_are_those_of_the_plain_model():
    plain, model = both()
    ids, dense, labels = batch(50)
    plain.loss(plain(ids, dense), labels).backward()
    model.loss(model(to_keyed_jagged_tensor(ids, model), dense), labels).backward()
    tables = torch.cat([bag.weight.grad for bag in model.features.embedding.embedding_bags.values()])
    torch.testing.assert_close(tables, plain.features.embedding.weight.grad, rtol=1e-5, atol=1e-7)
    first = torch.cat([bag.weight.grad for bag in model.features.first_order_tables.embedding_bags.values()])
    torch.testing.assert_close(first[:, :2], plain.features.first_order.table.weight.grad, rtol=1e-5, atol=1e-7)
    assert not first[:, 2:].any()
    torch.testing.assert_close(model.towers.head.private_weight.grad, plain.towers.head.private_weight.grad, rtol=1e-5, atol=1e-7)


def test_a_model_from_the_meta_device_draws_its_weights_anew():
    model = DCRNN(SIZES, **OPTIONS, device="meta").to_empty(device="cpu")
    model.reset_parameters()
    state = model.plain_state_dict()
    assert all(value.isfinite().all() for value in state.values())
    assert state["features.embedding.weight"].std().item() == pytest.approx(0.05, rel=0.3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparse": True}, "sparse=True: expected False"),
        ({"dtype": torch.float64}, "dtype=torch.float64: expected torch.float32"),
        ({"num_embeddings": [], "num_dense": 2}, "got one without fields"),
        ({"backend": "none"}, "backend='none'"),
    ],
)
def test_what_torchrecs_tables_cannot_do_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DCRNN(**{"num_embeddings": [4], **options})


def test_features_that_do_not_fit_are_refused():
    model = DCRNN(SIZES, **OPTIONS)
    ids, dense, _ = batch(3)
    features = to_keyed_jagged_tensor(ids, model)
    with pytest.raises(TypeError, match="ids: got Tensor, expected a KeyedJaggedTensor"):
        model(ids, dense)
    with pytest.raises(ValueError, match=r"dense: got shape \[2, 2\], expected \[3, 2\]"):
        model(features, dense[:2])
    with pytest.raises(ValueError, match="ids: got no rows, expected at least one"):
        model(to_keyed_jagged_tensor(ids[:0], model), dense[:0])


def test_weights_of_another_model_are_refused_and_change_nothing():
    model = DCRNN(SIZES, **OPTIONS)
    before = {name: value.clone() for name, value in model.plain_state_dict().items()}
    other = dcrnn_fast.DCRNN(SIZES, **OPTIONS | {"tower_dims": (9,)}).state_dict()
    with pytest.raises(ValueError, match=r"state\['towers.layers.0.private_weight'\]: got shape \[2, 9, 20\], expected \[2, 8, 20\]"):
        model.load_plain_state_dict(other)
    with pytest.raises(
        ValueError, match=r"state: lacks \['features.embedding.weight'\], has unknown \['table'\]; expected the state_dict of a DCRNN"
    ):
        model.load_plain_state_dict({("table" if name == "features.embedding.weight" else name): value for name, value in before.items()})
    with pytest.raises(TypeError, match=r"state\['towers.head.shared_bias'\]: got int, expected a tensor of floats \[0\]"):
        model.load_plain_state_dict({**before, "towers.head.shared_bias": 3})
    with pytest.raises(TypeError, match="state: got NoneType, expected the state_dict of a DCRNN"):
        model.load_plain_state_dict(None)
    after = model.plain_state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": dcrnn_fast.DCRNN([4])}, TypeError, "model: got DCRNN, expected a dcrnn_fast.torchrec.DCRNN"),
        ({"model": DCRNN([4], embedding_dim=6)}, ValueError, "model: got embedding_dim=6, expected a multiple of 4"),
        ({"lr": -1}, ValueError, "lr=-1: expected a finite number of at least 0"),
        ({"eps": "x"}, TypeError, "eps='x': expected a finite number"),
        ({"device": "nowhere"}, ValueError, "device='nowhere': expected a device"),
        ({}, RuntimeError, "there is no process group: call torch.distributed.init_process_group first"),
    ],
)
def test_what_cannot_be_sharded_is_refused(options, error, said):
    with pytest.raises(error, match=said):
        shard(**{"model": DCRNN([4]), **options})
