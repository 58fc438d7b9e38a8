"""Two processes prepare the same data in one cache, and one is killed at any moment: the other one has the data as if it were alone."""

import random
import signal

import pytest

from dcrnn_fast.data import open_packed
from tests.cli.forked.commands import Job


@pytest.fixture(scope="module")
def alone(commands, table, tmp_path_factory):
    """What the report on data says that one process has prepared; and the number of events, about, by which that is prepared."""
    environment = {"DCRNN_FAST_CACHE": str(tmp_path_factory.mktemp("alone"))}
    first, again = (commands(Job(["inspect", "--data", table / "tiny.yaml", "--json"], environment=environment))[0] for _ in range(2))
    assert first.code == again.code == 0, (first, again)
    return first.out, first.events - again.events


@pytest.mark.parametrize("seed", range(4))
def test_a_prepare_beside_one_that_is_killed_gets_the_data(seed, alone, commands, table, tmp_path):
    said, events = alone
    words, environment = ["inspect", "--data", table / "tiny.yaml", "--json"], {"DCRNN_FAST_CACHE": str(tmp_path)}
    stop = random.Random(seed).randint(1, events)
    killed, other = commands(Job(words, stop=stop, environment=environment), Job(words, environment=environment))
    assert killed.code == -signal.SIGKILL, killed
    assert (other.code, other.out) == (0, said), f"after a kill at event {stop:,} of {events:,}: {other}"
    (after,) = commands(Job(words, environment=environment))
    assert (after.code, after.out) == (0, said), after
    (entry,) = tmp_path.glob("[!.]*")
    open_packed(entry, verify=True)
    assert {path.name for path in tmp_path.iterdir()} == {entry.name, f".{entry.name}.lock"}, (
        f"after a kill at event {stop:,} of {events:,}"
    )
