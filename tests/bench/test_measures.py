"""The command of the measurements, candidates that take turns, and the model of a table over many GPUs."""

import json
from types import SimpleNamespace

import pytest
import torch

from bench import machine
from bench.interleave import compared
from bench.measures import __main__ as command
from bench.measures.sizing import Inputs, Needs, needs
from dcrnn_fast import DCRNN


@pytest.mark.parametrize("name", command.NAMES)
def test_every_measurement_lists_its_options(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"python -m bench.measures {name}" in capsys.readouterr().out


def test_a_measurement_replaces_its_part_of_the_file(monkeypatch, tmp_path):
    asked = SimpleNamespace(SECONDS=2.0, run=lambda options: {"rows": [options.seconds]})
    monkeypatch.setattr(command, "import_module", lambda name: asked)
    file = tmp_path / "measures.json"
    file.write_text('{"spark": 1, "scale": 2}')
    command.main(["scale", "--seconds", "0.5", "--output", str(file)])
    here = json.loads(json.dumps(machine.description()))
    assert json.loads(file.read_text()) == {"scale": {"machine": here, "rows": [0.5]}, "spark": 1}


def test_candidates_take_turns_and_the_ratio_is_ours_over_the_other():
    row = compared({"B": 3}, {"ours": lambda: None, "theirs": lambda: sum(range(10_000))}, ["ours"], seconds=0.0)
    assert (row["B"], row["rounds"]) == (3, 9)
    assert row["ours/theirs"] < 1


# 1000 rows x 2 in 4 bytes: a row is 8 bytes. 10 rows of data with 3 ids exchange 10 * 3 * (8 + 2 * 8) = 720 bytes.
SMALL = Inputs(
    rows=1000, width=2, value_bytes=4, ids=3, batch=10, node=2, hbm_gbs=1e-6, nvlink_gbs=1e-7, network_gbs=1e-8, tflops=1e-9,
    dense_parameters=5, dense_flops=7,
)  # fmt: skip


def test_what_a_rank_needs_is_what_was_computed_by_hand():
    """On four ranks in two nodes:

    - memory: 1000 * (8 + 4) / 4 = 3000 bytes of the table with Adagrad, 1000 * (8 + 16) / 4 = 6000 with AdamW; 720 exchanged; 5 * 16 = 80
    - sent: 720 * 3 / 4 = 540 bytes, of which 720 * 2 / 4 go to the other node at 10 bytes a second
    - table: 30 ids * (5 * 8 + 2 * 4) = 1440 bytes at 1000 a second
    - dense part: 3 * 7 * 10 = 210 FLOPs at 1000 a second; 2 * 3/4 * 20 bytes at 10 a second
    """
    found = needs(SMALL, 4)
    assert found == pytest.approx(Needs(3800, 6800, 540, 36.0, 1.44, 0.21 + 3.0, 12_000))
    fast_network = needs(Inputs(**{**vars(SMALL), "network_gbs": 1.0}), 4)
    assert fast_network.exchange == pytest.approx(1.8), "720 / 4 bytes stay in the node, at 100 a second"
    alone, both = needs(SMALL, 1), needs(SMALL, 2)
    assert (alone.sent, alone.exchange, both.sent, both.exchange, both.dense) == pytest.approx((0, 0, 360, 3.6, 0.21 + 0.2))


def test_the_dense_part_is_that_of_the_default_configuration():
    usual = Inputs()
    model = DCRNN([2] * usual.ids, embedding_dim=usual.width, device=torch.device("meta"))
    assert model.num_parameters - sum(table.numel() for table in model.features.id_tables) == usual.dense_parameters
    towers = sum(weight.numel() for name, weight in model.named_parameters() if name.startswith(("towers", "head")) and "weight" in name)
    assert model.plan.cost().flops + 2 * towers == usual.dense_flops
