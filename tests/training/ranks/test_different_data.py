"""Ranks that read different data, as machines do whose copies of a table differ, stop before the first step with one line that says so."""

import os
import re

import pytest
from torch.distributed import TCPStore

from dcrnn_fast.training import run
from tests.training.ranks.rank_process import CACHE, forked, last_words, rank_main
from tests.training.tiny import SCHEMA, files_below, tiny_values, write_table


def rank_with_its_data(environment, values, output, schema, pipe):
    """A rank that reads another schema than the one that the configuration names."""
    prepare = run.prepare_data
    run.prepare_data = lambda config, *rest, **more: prepare(config.model_copy(update={"data": schema}), *rest, **more)
    rank_main(environment, values, output, {}, pipe)


def start_two(schemas, output):
    """Train on two ranks, each with its own data; returns what they send."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    of_all = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    of_all |= {"TORCHELASTIC_USE_AGENT_STORE": "True", CACHE: os.environ[CACHE]}
    values = tiny_values(schemas[0])
    started = [
        forked(rank_with_its_data, of_all | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, values, str(output), str(schema))
        for rank, schema in enumerate(schemas)
    ]
    return [last_words(*one) for one in started]


OTHER = {
    "another value": {"seed": 1},
    "fewer rows": {"rows": 1400},
    "another schema of the same table": {"min_count": 200},
    "another field": {"categorical": ["shape", "colour", "user"], "group": None},
    "another task": {"tasks": SCHEMA["tasks"][:1], "funnel": False},
    "no dense column": {"numeric": [{"column": "size", "buckets": 8}]},
}


@pytest.mark.parametrize("case", OTHER)
def test_ranks_of_different_data_stop_with_one_line_and_leave_nothing(schema, tmp_path, case):
    other = write_table(tmp_path / "other", **OTHER[case])
    before = files_below(tmp_path)
    said = start_two([schema, other], tmp_path / "run")
    assert [one[:2] for one in said] == [("failed", "RanksError")] * 2, said
    assert [one[3] for one in said].count(False) == 1, "one rank tells the user, and the other one leaves it to that one"
    for _, _, message, _ in said:
        assert re.match(r"rank 1 and rank 0 differ in data: [0-9a-f]{64} and [0-9a-f]{64}\. All ranks must read the same data", message)
        assert "\n" not in message
    assert files_below(tmp_path) == before
    assert not (tmp_path / "run").exists()
