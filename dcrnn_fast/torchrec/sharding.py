"""Tables divided among the processes of a job, each row updated in the backward pass by fbgemm's row-wise Adagrad."""

from __future__ import annotations

import torch
from torch import distributed
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.types import ShardingType
from torchrec.optim import RowWiseAdagrad

from ..support.checks import check_deviation, check_placement
from .model import DCRNN

WHOLE_ROWS = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]


def shard(
    model: DCRNN, *, lr: float = 0.05, first_order_lr: float = 0.1, eps: float = 1e-8, device: torch.device | str = "cpu"
) -> DistributedModelParallel:
    """The model in torchrec's ``DistributedModelParallel``: each process holds some tables, or some rows of one. Every process calls it.

    torchrec's planner divides the tables. A backward updates them by the rule of :class:`dcrnn_fast.RowWiseAdagrad`; all other parameters
    are the same in every process, and need an optimiser of yours. torchrec's own plan may copy small tables to every process, which fused
    optimisers do not update, or cut rows in pieces, which row-wise Adagrad then updates apart; this one does neither.

    Args:
        model: on the meta device, its parameters are drawn here, and no process ever holds all tables.
        lr, first_order_lr, eps: of row-wise Adagrad, finite and at least 0; the tables of the first-order term have a rate of their own.
        device: where this process computes.

    Raises:
        TypeError, ValueError: an argument of another type or outside its range, or a model whose embedding_dim is no multiple of 4.
        RuntimeError: there is no process group yet; call ``torch.distributed.init_process_group`` first.

    Example::

        model = DCRNN(encoder.num_embeddings, num_dense=len(encoder.dense), tasks=encoder.tasks, device="meta")
        parallel = shard(model)
        tables = ("embedding.", "first_order_tables.")
        optimiser = torch.optim.AdamW([p for name, p in parallel.named_parameters() if not name.startswith(tables)])
    """
    if not isinstance(model, DCRNN):
        raise TypeError(f"model: got {type(model).__name__}, expected a dcrnn_fast.torchrec.DCRNN")
    for name, value in (("lr", lr), ("first_order_lr", first_order_lr), ("eps", eps)):
        check_deviation(name, value)
    if model.embedding_dim % 4:
        raise ValueError(f"model: got embedding_dim={model.embedding_dim}, expected a multiple of 4, which fbgemm's sharded tables need")
    check_placement(device, None)
    place = torch.device(device)
    if not distributed.is_initialized():
        raise RuntimeError("there is no process group: call torch.distributed.init_process_group first")
    _apply_optimizer_in_backward(RowWiseAdagrad, model.embedding.parameters(), {"lr": lr, "eps": eps})
    if model.first_order_tables is not None:
        tables = [*model.first_order_tables.parameters()]
        narrower = (len(model.tasks) / tables[0].shape[1]) ** 0.5  # the mean of a row's squares counts the zeros that fill it up too
        _apply_optimizer_in_backward(RowWiseAdagrad, tables, {"lr": first_order_lr * narrower, "eps": eps * narrower})
    world, sharders = distributed.get_world_size(), [EmbeddingBagCollectionSharder()]
    allowed = ParameterConstraints(sharding_types=WHOLE_ROWS, compute_kernels=[EmbeddingComputeKernel.FUSED.value])
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=world, local_world_size=get_local_size(world), compute_device=place.type),
        constraints=dict.fromkeys([*model.tables, *(f"{name}_first_order" for name in model.tables)], allowed),
    )
    plan = planner.collective_plan(model, sharders, distributed.group.WORLD)
    return DistributedModelParallel(model, device=place, plan=plan, sharders=sharders)
