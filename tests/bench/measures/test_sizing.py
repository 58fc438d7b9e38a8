"""The model of a table over many GPUs, by cases that were computed by hand."""

import pytest
import torch

from bench.measures import __main__ as command
from bench.measures import sizing
from bench.measures.sizing import Inputs
from dcrnn_fast import DCRNN

# 1000 rows x 2 in 4 bytes: a row is 8 bytes. 10 rows of data with 3 ids exchange 10 * 3 * (8 + 2 * 8) = 720 bytes.
SMALL = Inputs(
    rows=1000, width=2, value_bytes=4, ids=3, batch=10, node=2, hbm_gbs=1e-6, nvlink_gbs=1e-7, network_gbs=1e-8, tflops=1e-9,
    dense_parameters=5, dense_flops=7,
)  # fmt: skip


@pytest.mark.parametrize(("ranks", "sent"), [(1, 0), (2, 360), (4, 540)])
def test_a_rank_sends_all_but_its_own_part(ranks, sent):
    assert sizing.sent_bytes(SMALL, ranks) == sent


def test_memory_is_a_part_of_table_and_state_with_buffers_and_the_dense_part():
    # 1000 * (8 + 4) / 4 = 3000 of the table, 720 exchanged, 5 * 16 = 80; AdamW: 1000 * (8 + 16) / 4 = 6000
    assert sizing.rank_memory(SMALL, 4, sizing.ADAGRAD_BYTES) == 3800
    assert sizing.rank_memory(SMALL, 4, sizing.adamw_bytes(SMALL)) == 6800


def test_our_own_trainer_holds_the_whole_table_on_each_rank():
    assert sizing.replicated_memory(SMALL) == 1000 * 12


@pytest.mark.parametrize(
    ("ranks", "seconds"),
    [
        (1, 0.0),
        (2, 3.6),  # 720 / 2 bytes at 100 a second
        (4, 36.0),  # 720 * 2 / 4 bytes to the other node at 10 a second; 720 / 4 in the node take 1.8 s meanwhile
    ],
)
def test_the_slower_of_both_links_decides_how_long_the_exchange_takes(ranks, seconds):
    assert sizing.exchange_seconds(SMALL, ranks) == pytest.approx(seconds)


def test_a_fast_network_leaves_the_links_in_the_node_as_the_slower():
    fast = Inputs(**{**vars(SMALL), "network_gbs": 1.0})
    assert sizing.exchange_seconds(fast, 4) == pytest.approx(1.8)


def test_the_table_is_read_and_written_five_times_and_its_state_twice():
    # 30 ids * (5 * 8 + 2 * 4) = 1440 bytes at 1000 a second
    assert sizing.table_seconds(SMALL, 4) == pytest.approx(1.44)


def test_the_dense_part_is_three_forwards_and_a_ring():
    # 3 * 7 * 10 = 210 FLOPs at 1000 a second; 2 * 1/2 * 20 bytes at 100 a second, 2 * 3/4 * 20 at 10
    assert sizing.dense_seconds(SMALL, 2) == pytest.approx(0.21 + 0.2)
    assert sizing.dense_seconds(SMALL, 4) == pytest.approx(0.21 + 3.0)


def test_a_step_is_the_sum_of_its_parts():
    assert sizing.step_seconds(SMALL, 4) == pytest.approx(36.0 + 1.44 + 3.21)


def test_a_table_that_does_not_fit_is_said_to_be_too_much():
    tight = Inputs(**{**vars(SMALL), "memory_gb": 5e-6})
    assert sizing.line(tight, 4)[1:3] == ["0.0 GB", "0.0 GB (too much)"]


def test_the_dense_part_of_the_defaults_is_that_of_the_default_configuration():
    usual = Inputs()
    model = DCRNN([2] * usual.ids, embedding_dim=usual.width, device=torch.device("meta"))
    assert model.num_parameters - sum(table.numel() for table in model.features.id_tables) == usual.dense_parameters
    towers = sum(weight.numel() for name, weight in model.named_parameters() if name.startswith(("towers", "head")) and "weight" in name)
    assert model.plan.cost().flops + 2 * towers == usual.dense_flops


def test_the_command_prints_the_table_and_writes_it(tmp_path, capsys):
    command.main(["sizing", "--ranks", "8", "--rows", "1000000", "--output", str(tmp_path / "sizing.md")])
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "sizing.md").read_text()
    assert printed.startswith("| GPUs | memory a GPU: row-wise Adagrad |")
    assert "1,000,000 rows x 64" in printed


def test_the_command_refuses_a_number_that_is_not_above_0():
    with pytest.raises(SystemExit, match="expected numbers above 0: batch"):
        command.main(["sizing", "--batch", "0"])
