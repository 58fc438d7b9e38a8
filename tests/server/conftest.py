import os

import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.locks import locked
from dcrnn_fast.serving import export
from dcrnn_fast.training import train
from dcrnn_fast.training.model_file import weights_digest
from tests.training.tiny import tiny_config, write_table

from .cpp_server import built


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


@pytest.fixture(scope="session")
def cpp_program():
    """The server in C++."""
    return built()


@pytest.fixture(scope="session")
def compiled(cpp_program, shop, tmp_path_factory):
    """The run, compiled for the server in C++. Processes of pytest-xdist, which train equal runs, compile it once."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = shared / f"shop-{weights_digest(shop / 'run' / 'model.safetensors')[:16]}.pt2"
    with locked(shared / "compiled.lock", wait=True):
        if not path.exists():
            export(shop / "run", path, format="aoti", backend="cpp", rows=1000)
    return path
