"""Trains a DCRNN whose embedding tables several processes divide among themselves.

torchrun --nproc-per-node 2 examples/train_with_torchrec.py hillstrom hillstrom.safetensors
"""

import sys

import torch
from safetensors.torch import save_file
from torch import distributed

import dcrnn_fast
from dcrnn_fast.data import BlockLoader, prepare
from dcrnn_fast.torchrec import DCRNN, shard, to_keyed_jagged_tensor

EPOCHS, BATCH = 3, 512  # rows of all ranks; a multiple of their number, so that each has as many


def main(data: str, output: str) -> None:
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    packed = prepare(data)
    meta, rows = packed.meta, packed.split("train")
    fields = {"num_embeddings": meta.fields, "shared_embeddings": meta.shared, "pooled": meta.pooled}
    options = {**fields, "num_dense": len(meta.dense), "tasks": meta.tasks, "relation": meta.relation}

    model = DCRNN(**options, device="meta")
    parallel = shard(model, lr=0.05)  # the tables: row-wise Adagrad, in the backward
    tables = ("features.embedding.", "features.first_order_tables.")
    optimiser = torch.optim.AdamW([p for name, p in parallel.named_parameters() if not name.startswith(tables)], lr=0.005)
    loader = BlockLoader(rows, BATCH, shuffle=True, shards=ranks, shard=rank)
    for epoch in range(EPOCHS):
        total = 0.0
        for _, batch in zip(range(len(rows) // BATCH), loader.batches(epoch), strict=False):  # but the short last batch
            loss = model.loss(parallel(to_keyed_jagged_tensor(batch.ids, model), batch.dense), batch.labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        if rank == 0:
            print(f"epoch {epoch}: mean loss of rank 0 is {total / (len(rows) // BATCH):.4f}")

    weights = parallel.module.plain_state_dict()  # all ranks give their parts to rank 0
    distributed.destroy_process_group()
    if rank == 0:
        save_file(weights, output)
        served = dcrnn_fast.DCRNN(**options)  # needs no torchrec
        served.load_state_dict(weights)
        (batch,) = BlockLoader(packed.split("test"), len(packed.split("test"))).batches()
        print(f"test loss of the plain DCRNN: {served.eval().loss(served(batch.ids, batch.dense), batch.labels).item():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
