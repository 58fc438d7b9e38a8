"""The model of a table over many GPUs, by cases that were computed by hand."""

import pytest
import torch

from bench.measures.sizing import Inputs, line, needs
from dcrnn_fast import DCRNN

# 1000 rows x 2 in 4 bytes: a row is 8 bytes. 10 rows of data with 3 ids exchange 10 * 3 * (8 + 2 * 8) = 720 bytes.
SMALL = Inputs(
    rows=1000, width=2, value_bytes=4, ids=3, batch=10, node=2, hbm_gbs=1e-6, nvlink_gbs=1e-7, network_gbs=1e-8, tflops=1e-9,
    dense_parameters=5, dense_flops=7,
)  # fmt: skip


@pytest.mark.parametrize(("ranks", "sent", "exchange"), [
    (1, 0, 0.0),
    (2, 360, 3.6),  # 720 / 2 bytes at 100 a second
    (4, 540, 36.0),  # 720 * 2 / 4 bytes to the other node at 10 a second; 720 / 4 in the node take 1.8 s meanwhile
])  # fmt: skip
def test_a_rank_sends_all_but_its_own_part_by_the_slower_link(ranks, sent, exchange):
    found = needs(SMALL, ranks)
    assert (found.sent, found.exchange) == (sent, pytest.approx(exchange))


def test_a_fast_network_leaves_the_links_in_the_node_as_the_slower():
    assert needs(Inputs(**{**vars(SMALL), "network_gbs": 1.0}), 4).exchange == pytest.approx(1.8)


def test_memory_is_a_part_of_table_and_state_buffers_and_dense_part():
    # 1000 * (8 + 4) / 4 = 3000 of the table, 720 exchanged, 5 * 16 = 80; AdamW: 1000 * (8 + 16) / 4 = 6000
    found = needs(SMALL, 4)
    assert (found.adagrad, found.adamw, found.replicated) == (3800, 6800, 12_000)


def test_the_table_is_read_and_written_five_times_and_its_state_twice():
    assert needs(SMALL, 4).table == pytest.approx(1.44)  # 30 ids * (5 * 8 + 2 * 4) = 1440 bytes at 1000 a second


def test_the_dense_part_is_three_forwards_and_a_ring():
    # 3 * 7 * 10 = 210 FLOPs at 1000 a second; 2 * 1/2 * 20 bytes at 100 a second, 2 * 3/4 * 20 at 10
    assert [needs(SMALL, ranks).dense for ranks in (2, 4)] == pytest.approx([0.21 + 0.2, 0.21 + 3.0])


def test_a_table_that_does_not_fit_is_said_to_be_too_much():
    assert line(Inputs(**{**vars(SMALL), "memory_gb": 5e-6}), 4)[1:3] == ["0.0 GB", "0.0 GB (too much)"]


def test_the_dense_part_is_that_of_the_default_configuration():
    usual = Inputs()
    model = DCRNN([2] * usual.ids, embedding_dim=usual.width, device=torch.device("meta"))
    assert model.num_parameters - sum(table.numel() for table in model.features.id_tables) == usual.dense_parameters
    towers = sum(weight.numel() for name, weight in model.named_parameters() if name.startswith(("towers", "head")) and "weight" in name)
    assert model.plan.cost().flops + 2 * towers == usual.dense_flops
