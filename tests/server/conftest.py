import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.training import train
from tests.training.tiny import tiny_config, write_table


@pytest.fixture(scope="session", autouse=True)
def _cache(own_cache):
    pass


@pytest.fixture(scope="session")
def shop(_cache, tmp_path_factory):
    """A folder with tiny.csv, its schema and ``run``, a run on it. Do not write into it."""
    folder = tmp_path_factory.mktemp("shop")
    train(tiny_config(write_table(folder), optimiser__epochs=1), folder / "run")
    return folder


@pytest.fixture(scope="session")
def ranker(shop):
    return Ranker.load(shop / "run")
