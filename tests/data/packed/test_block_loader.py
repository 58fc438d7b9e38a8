"""The loader's order: every row once an epoch, a pure function of (seed, epoch), resumable at any batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dcrnn_fast.data import BlockLoader, PackedSplit


def numbered(rows, *, dense=True, weight=True):
    """A split whose arrays all hold the row's number."""
    number = np.arange(rows)
    column = number[:, None].astype(np.float32)
    ids = np.stack([number, number], axis=1).astype(np.int32)
    return PackedSplit("train", ids, column if dense else None, column, column[:, 0] if weight else None, None)


def order(batches):
    return [batch.ids[:, 0].tolist() for batch in batches]


loaders = st.builds(
    lambda rows, batch_size, shuffle, seed, block_rows, window_blocks: BlockLoader(
        numbered(rows), batch_size, shuffle=shuffle, seed=seed, block_rows=block_rows, window_blocks=window_blocks
    ),
    st.integers(1, 120),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 2**64),
    st.integers(1, 30),
    st.integers(1, 5),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(loaders, st.integers(0, 1000), st.data())
def test_an_epoch_holds_every_row_once_in_full_batches_and_starts_anywhere(loader, epoch, data):
    batches, rows = order(loader.batches(epoch)), len(loader.split)
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    assert len(batches) == len(loader)
    assert [len(batch) for batch in batches[:-1]] == [loader.batch_size] * (len(batches) - 1)
    assert len(batches[-1]) == rows - loader.batch_size * (len(batches) - 1)
    start = data.draw(st.integers(0, len(loader)))
    assert order(loader.batches(epoch, start)) == batches[start:]
    for batch in loader.batches(epoch, start):
        for column in (batch.ids[:, 1].float(), batch.dense[:, 0], batch.labels[:, 0], batch.weight):
            assert torch.equal(column, batch.ids[:, 0].float())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(loaders, st.integers(0, 1000), st.integers(2, 7), st.data())
def test_the_parts_of_all_shards_are_the_batches_of_one_process(loader, epoch, shards, data):
    def part(shard):
        options = {name: getattr(loader, name) for name in ("shuffle", "seed", "block_rows", "window_blocks")}
        return BlockLoader(loader.split, loader.batch_size, **options, shards=shards, shard=shard).batches(epoch, start)

    start = data.draw(st.integers(0, len(loader)))
    for whole, *parts in zip(loader.batches(epoch, start), *map(part, range(shards)), strict=True):
        for column, own in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(column, torch.cat(own))
        sizes = [len(part.ids) for part in parts]
        assert max(sizes) - min(sizes) <= 1, f"the parts of {len(whole.ids)} rows have {sizes}"


@pytest.mark.parametrize(("seed", "epoch"), [(3, 8), (4, 7)])
def test_seed_and_epoch_change_the_blocks_of_a_window_and_the_rows_inside(seed, epoch):
    def rows(seed, epoch, block_rows, window_blocks):
        loader = BlockLoader(numbered(64), 16, shuffle=True, seed=seed, block_rows=block_rows, window_blocks=window_blocks)
        return order(loader.batches(epoch))

    assert rows(3, 7, 64, 1) == rows(3, 7, 64, 1) != rows(seed, epoch, 64, 1)
    assert set(rows(3, 7, 4, 4)[0]) != set(rows(seed, epoch, 4, 4)[0])


def test_two_iterators_of_one_loader_do_not_disturb_each_other():
    loader = BlockLoader(numbered(100), 7, shuffle=True, block_rows=8, window_blocks=2)
    first, second = loader.batches(), loader.batches()
    interleaved = [(a.ids.tolist(), b.ids.tolist()) for a, b in zip(first, second, strict=True)]
    assert all(a == b for a, b in interleaved)


def test_a_window_that_holds_the_split_mixes_all_rows():
    batches = order(BlockLoader(numbered(4096), 256, shuffle=True, block_rows=64).batches())
    means = [np.mean(batch) for batch in batches]
    assert max(abs(mean - 2047.5) for mean in means) < 5 * 1182 / np.sqrt(256)


def test_tensors_have_the_types_the_model_takes_and_the_order_of_the_file():
    batch = next(BlockLoader(numbered(3), 2).batches())
    assert (batch.ids.dtype, batch.dense.dtype, batch.labels.dtype, batch.weight.dtype) == (torch.int64, *[torch.float32] * 3)
    assert (batch.ids.shape, batch.dense.shape, batch.labels.shape, batch.weight.shape) == ((2, 2), (2, 1), (2, 1), (2,))
    batch = next(BlockLoader(numbered(3, dense=False, weight=False), 2).batches())
    assert (batch.dense, batch.weight) == (None, None)
    assert order(BlockLoader(numbered(10), 4, block_rows=3, window_blocks=2).batches(5)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_changing_a_batch_in_place_leaves_the_data_alone(table):
    split = table.prepare().split("train")
    for batch in BlockLoader(split, 3).batches():
        batch.labels.fill_(9)
        batch.dense.fill_(9)
    assert split.labels.max() == 1
