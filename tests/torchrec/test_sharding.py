"""Two processes with a part of the tables each train the model that one process trains."""

from datetime import timedelta

import pytest
import torch

pytest.importorskip("torchrec")

from torch import distributed
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.sharding_plan import column_wise, construct_module_sharding_plan, data_parallel, row_wise, table_wise
from torchrec.distributed.types import ShardingPlan

import dcrnn_fast
from dcrnn_fast.torchrec import DCRNN, shard, to_keyed_jagged_tensor

from .models import OPTIONS, RANKS, SIZES, batch, on_two_ranks

ROWS, STEPS = 24, 5


def start():
    """The plain model from whose weights all training starts."""
    torch.manual_seed(0)
    return dcrnn_fast.DCRNN(SIZES, **OPTIONS, sparse=True)


def steps_of(model, predict, optimisers, rows):
    """Train; returns the losses."""
    losses = []
    for step in range(STEPS):
        inputs = [values[rows] for values in batch(ROWS, step)]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss = model.loss(predict(*inputs[:2]), inputs[2])
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        losses.append(loss.item())
    return losses


def one_process():
    model = start()
    dense = [
        value for name, value in model.named_parameters() if name not in ("features.embedding.weight", "features.first_order.table.weight")
    ]
    embeddings, first_order = model.features.id_tables
    tables = [{"params": [embeddings], "lr": 0.05}, {"params": [first_order], "lr": 0.1}]
    optimisers = [torch.optim.SGD(dense, lr=0.1), dcrnn_fast.RowWiseAdagrad(tables)]
    return steps_of(model, model, optimisers, slice(None)), model.state_dict()


def train(rank, folder):
    distributed.init_process_group("gloo", timeout=timedelta(minutes=1))  # a rank waits no longer for one that failed
    model = DCRNN(SIZES, **OPTIONS, device="meta")
    parallel = shard(model, lr=0.05)
    parts = list(model.features.parts())
    held = sum(part.values.numel() for part in parts)
    drawn = [value for part in parts if part.collection == "embedding" for value in part.values.flatten().tolist()]
    parallel.module.load_plain_state_dict(start().state_dict())
    tables = "features.embedding.", "features.first_order_tables."
    dense = [value for name, value in parallel.named_parameters() if not name.startswith(tables)]
    predict = lambda ids, dense: parallel(to_keyed_jagged_tensor(ids, model), dense)  # noqa: E731
    losses = steps_of(model, predict, [torch.optim.SGD(dense, lr=0.1)], slice(rank * ROWS // RANKS, (rank + 1) * ROWS // RANKS))
    state = parallel.module.plain_state_dict()
    if rank == 0:
        torch.save(state, folder / "state.pt")
    return losses, held, state is None, drawn


def test_two_ranks_train_as_one_process(tmp_path):
    losses, state = one_process()
    ranks = on_two_ranks(train, tmp_path)
    torch.testing.assert_close([sum(of_step) / RANKS for of_step in zip(*(rank[0] for rank in ranks), strict=True)], losses)
    assert losses[-1] != losses[0]
    values = state["features.embedding.weight"].numel() + 4 * len(
        state["features.first_order.table.weight"]
    )  # a number a task, filled up to four
    assert sum(rank[1] for rank in ranks) == values > max(rank[1] for rank in ranks) > 0
    assert [rank[2] for rank in ranks] == [False, True]
    assert 0.03 < torch.tensor([value for rank in ranks for value in rank[3]]).std() < 0.07, "tables start with embedding_init_std 0.05"
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.testing.assert_close(found, dict(state), rtol=1e-5, atol=1e-6)
    dcrnn_fast.DCRNN(SIZES, **OPTIONS).load_state_dict(found)


def planned(rank, folder):
    """Weights into a model that torchrec shards by a plan of the user's own, in every way, and out of it."""
    distributed.init_process_group("gloo", timeout=timedelta(minutes=1))  # a rank waits no longer for one that failed
    model = DCRNN({**SIZES, "city": 9}, **OPTIONS | {"embedding_dim": 8})
    ways = dict(zip(model.features.tables, [row_wise(), table_wise(rank=1), column_wise(ranks=[0, 1]), data_parallel()], strict=True))
    sharder = EmbeddingBagCollectionSharder()
    sizes = {"local_size": RANKS, "world_size": RANKS, "device_type": "cpu"}
    plan = construct_module_sharding_plan(model.features.embedding, ways, sharder=sharder, **sizes)
    parallel = DistributedModelParallel(model, plan=ShardingPlan({"embedding": plan}), sharders=[sharder])
    given = torch.load(folder / "given.pt", weights_only=True)
    parallel.module.load_plain_state_dict(given)
    ids, dense, _ = batch(6)
    ids = torch.cat([ids, ids[:, :1] % 9], dim=1)
    logits = parallel(to_keyed_jagged_tensor(ids, model), dense).detach()
    state = parallel.module.plain_state_dict()
    if rank == 0:
        torch.save((state, logits), folder / "found.pt")


def test_weights_go_into_tables_sharded_in_any_way_and_out_of_them(tmp_path):
    plain = dcrnn_fast.DCRNN({**SIZES, "city": 9}, **OPTIONS | {"embedding_dim": 8})
    torch.save(plain.state_dict(), tmp_path / "given.pt")
    on_two_ranks(planned, tmp_path)
    state, logits = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value), name
    ids, dense, _ = batch(6)
    torch.testing.assert_close(logits, plain(torch.cat([ids, ids[:, :1] % 9], dim=1), dense), rtol=1e-6, atol=1e-6)
