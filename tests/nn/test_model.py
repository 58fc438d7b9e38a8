"""DCRNN: the same model on both sides of an import swap, its events' probabilities, and its gradients."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from dcrnn_fast import DCRNN, reference
from tests.nn.models import PLAIN, SIZES, batch
from tests.operators.problems import DOUBLE

RELATIONS = ("chain", "independent", "transfer")
SHARINGS = ("rows", "trunk")


@pytest.mark.parametrize("share_ratio", [0, 0.5, 1])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_loss_gradients_match_finite_differences(sharing, relation, tied, share_ratio):
    options = PLAIN | {"embedding_dim": 2, "num_dense": 1, "tower_dims": (3,)}
    model = reference.DCRNN([2, 3], **options, sharing=sharing, relation=relation, tied=tied, share_ratio=share_ratio, dtype=DOUBLE)
    ids, dense = torch.tensor([[0, 2], [1, 0], [1, 1]]), torch.randn(3, 1, dtype=DOUBLE)
    labels = torch.tensor([[1.0, 0.0], [1.0, float("nan")], [0.0, 0.0]], dtype=DOUBLE)
    parameters = {name: value for name, value in model.named_parameters() if value.numel()}

    def loss(*values):
        logits = functional_call(model, dict(zip(parameters, values, strict=True)), (ids, dense))
        return model.loss(logits, labels)

    assert gradcheck(loss, tuple(parameters.values()), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_model_of_low_rank_has_more_parameters_than_an_older_state_dict_and_the_full_cell_the_same(sharing):
    """A state_dict from before there was a rank loads into the full cell as ever."""
    full, low = (set(DCRNN(SIZES, sharing=sharing, rank=rank).state_dict()) for rank in (None, 4))
    trunk = {"cross.trunk_projection"} if sharing == "trunk" else set()
    assert low - full == {"cross.shared_projection", "cross.private_projection"} | trunk
    assert not [name for name in full if "projection" in name]


def test_the_cross_cell_trains_too():
    model = DCRNN(SIZES, embedding_dim=4, cell="cross", tied=False)
    ids, _, labels = batch()
    model.loss(model(ids), labels).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.numel())


@pytest.mark.parametrize("relation", RELATIONS)
def test_predict_gives_the_events_probabilities_and_under_the_chain_the_conditional(relation):
    model, ids = DCRNN(SIZES, embedding_dim=4, relation=relation).eval(), batch()[0]
    p = model.predict(ids)
    assert list(p) == ["click", "consume", *(["consume_given_click"] if relation == "chain" else [])]
    assert all(value.shape == (9,) and value.dtype == torch.float32 for value in p.values())
    torch.testing.assert_close(torch.stack([p["click"], p["consume"]], dim=1), torch.sigmoid(model(ids)))
    if relation == "chain":
        torch.testing.assert_close(p["click"] * p["consume_given_click"], p["consume"])


def test_under_the_chain_consume_is_never_likelier_than_click_however_large_the_logits():
    model = DCRNN(SIZES, embedding_dim=4, tasks=("see", "click", "consume"))
    ids = batch(500)[0]
    for scale in (1, 1e2, 1e4):
        with torch.no_grad():
            model.towers.head.private_weight.normal_(std=scale)
        p = model.predict(ids)
        assert (p["consume"] <= p["click"]).all()
        assert (p["click"] <= p["see"]).all()


def test_one_task_needs_no_relation_between_tasks():
    ids, _, labels = batch(tasks=1)
    for relation in RELATIONS:
        model = DCRNN(SIZES, embedding_dim=4, tasks=("click",), relation=relation)
        model.loss(model(ids), labels).backward()
        assert list(model.predict(ids)) == ["click"]


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_batch_and_a_batch_of_one_are_predicted(rows):
    ids, dense, _ = batch(rows, num_dense=2)
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2)
    assert model(ids, dense).shape == (rows, 2)
    assert model.predict(ids, dense)["click"].shape == (rows,)


@pytest.mark.parametrize("autocast", [False, True])
def test_dense_features_alone_make_a_model(autocast):
    model = DCRNN([], num_dense=3, embedding_dim=8)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(torch.empty(4, 0, dtype=torch.int64), torch.randn(4, 3))
    assert logits.shape == (4, 2)
    assert torch.isfinite(logits).all()


def test_fields_have_rows_of_their_own_in_the_merged_table():
    model = DCRNN(SIZES, embedding_dim=4)
    with torch.no_grad():
        model.features.embedding.weight.copy_(torch.arange(21.0)[:, None].expand(-1, 4))
    assert model.features(torch.tensor([[6, 0, 2]])).x0[0, ::4].tolist() == [6.0, 7.0, 20.0]


def test_hard_and_no_sharing_are_the_ends_of_the_parameter_count():
    counts = [DCRNN(SIZES, share_ratio=ratio).num_parameters for ratio in (1, 0.5, 0)]
    assert counts[0] < counts[1] < counts[2]


def test_dropout_acts_in_training_alone():
    model = DCRNN(SIZES, embedding_dim=4, dropout=0.5)
    ids = batch()[0]
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_the_same_seed_gives_the_same_model():
    def weights():
        torch.manual_seed(3)
        return DCRNN(SIZES, relation="transfer").state_dict()

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)


@pytest.mark.parametrize("model", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
def test_the_embeddings_start_with_the_given_deviation_and_nothing_else_changes(model):
    def start(std):
        torch.manual_seed(3)
        return model([4000], embedding_dim=4, embedding_init_std=std)

    wide, narrow = start(0.5), start(0.25)
    halved = wide.state_dict() | {"features.embedding.weight": wide.features.embedding.weight / 2}
    torch.testing.assert_close(narrow.state_dict(), halved, rtol=0, atol=0)
    for _ in range(2):
        assert narrow.features.embedding.weight.std().item() == pytest.approx(0.25, rel=0.05)
        narrow.reset_parameters()


def test_embeddings_that_start_at_zero_learn_to_tell_ids_apart():
    torch.manual_seed(0)
    model = reference.DCRNN([2], embedding_dim=4, embedding_init_std=0, tasks=("click",), dropout=0.0)
    ids, labels = torch.tensor([[0], [1]]), torch.tensor([[0.0], [1.0]])
    assert torch.equal(*model(ids))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(50):
        optimiser.zero_grad()
        model.loss(model(ids), labels).backward()
        optimiser.step()
    low, high = model.predict(ids)["click"].tolist()
    assert low < 0.2 < 0.8 < high


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_model_computes_in_the_dtype_it_was_built_in_and_the_loss_in_float32_or_better(dtype):
    model = DCRNN(SIZES, embedding_dim=4, dtype=dtype)
    ids, _, labels = batch()
    assert all(p.dtype == dtype for p in model.parameters())
    assert model.loss(model(ids), labels).dtype == torch.promote_types(dtype, torch.float32)


def test_autocast_computes_close_to_float32():
    model = DCRNN(SIZES, embedding_dim=8).eval()
    ids = batch(64)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = model(ids)
    torch.testing.assert_close(lower, model(ids), atol=0.05, rtol=0.05)


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


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("how", ["argument", "context"])
@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low-rank"])
def test_a_model_built_on_the_meta_device_is_whole_after_to_empty_and_reset(sharing, how, rank):
    options = {"num_dense": 2, "relation": "transfer", "sharing": sharing, "rank": rank, "dropout": 0.0}
    with torch.device("meta" if how == "context" else "cpu"):
        model = DCRNN(SIZES, **options, device="meta" if how == "argument" else None)
    assert all(t.device.type == "meta" for t in (*model.parameters(), *model.buffers()))
    model.to_empty(device="cpu").reset_parameters()
    whole = DCRNN(SIZES, **options)
    whole.load_state_dict(model.state_dict())
    ids, dense, _ = batch(num_dense=2)
    assert torch.equal(model(ids, dense), whole(ids, dense))


@pytest.mark.parametrize("load", ["assign", "to_empty"])
@pytest.mark.parametrize("options", [{"rank": 3}, {"sharing": "trunk", "scenario": "hour"}], ids=["rows", "scenarios"])
def test_a_model_built_on_the_meta_device_is_whole_after_it_takes_a_state_dict(options, load):
    options |= {"embedding_dim": 4, "dropout": 0.0}
    whole, model, ids = DCRNN(SIZES, **options), DCRNN(SIZES, **options, device="meta"), batch()[0]
    if load == "to_empty":
        model.to_empty(device="cpu")
    model.load_state_dict(whole.state_dict(), assign=load == "assign")
    assert torch.equal(model(ids), whole(ids))


def test_a_model_can_be_copied_and_pickled():
    model = DCRNN(SIZES, sharing="trunk", share_ratio=1.0).eval()
    ids = batch()[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 (its own bytes)
        assert torch.equal(twin(ids), model(ids))


def test_sizes_and_ratios_may_be_numpy_scalars():
    model = DCRNN(np.array([5, 6]), embedding_dim=np.int64(4), share_ratio=np.float32(0.5), steps=np.int32(2))
    assert model(torch.tensor([[4, 5]])).shape == (1, 2)


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


def test_dropped_ids_change_what_the_embeddings_read_in_training_and_not_the_first_order_term():
    model, (ids, _, _) = DCRNN(SIZES, embedding_dim=4), batch()
    torch.nn.init.normal_(model.features.first_order.table.weight)
    model.features.id_dropout = torch.zeros_like
    in_training, of_zeros = model.features(ids), model.features(torch.zeros_like(ids))
    as_they_are = model.eval().features(ids)
    assert torch.equal(in_training.x0, of_zeros.x0)
    assert torch.equal(in_training.first_order, as_they_are.first_order)
    assert not torch.equal(in_training.x0, as_they_are.x0)


def test_ids_are_checked_before_they_are_dropped():
    model, (ids, _, _) = DCRNN(SIZES, embedding_dim=4), batch()
    model.features.id_dropout = torch.zeros_like
    ids[0, 1] = 11
    with pytest.raises(IndexError, match="'item'"):
        model(ids)
