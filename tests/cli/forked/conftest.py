import shutil

import pytest

from tests.cli.forked.commands import Commands, Job
from tests.training.tiny import tiny_config, write_table


@pytest.fixture(scope="session")
def commands():
    """Runs commands, see :class:`Commands`."""
    with Commands() as started:
        yield started


@pytest.fixture(scope="session")
def table(commands, tmp_path_factory):
    """A folder with a table of 1500 rows, its schema, and ``run``, a run on it. Do not write into it."""
    folder = tmp_path_factory.mktemp("table")
    config = folder / "run.yaml"
    config.write_text(tiny_config(write_table(folder), optimiser__epochs=1).to_yaml())
    environment = {"DCRNN_FAST_CACHE": str(folder / "cache")}
    (trained,) = commands(Job(["train", "--config", config, "--output", folder / "run"], environment=environment))
    assert trained.code == 0, trained
    return folder


@pytest.fixture
def run(table, tmp_path):
    """A copy of the run to write into."""
    return shutil.copytree(table / "run", tmp_path / "run")
