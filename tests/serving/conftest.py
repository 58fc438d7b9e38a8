import pytest

from dcrnn_fast.training import train
from tests.training.tiny import tiny_config, write_table


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder with tiny.csv, its schema and ``run``, a run on it. Do not write into it."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCRNN_FAST_CACHE", str(folder / "cache"))
        train(tiny_config(write_table(folder)), folder / "run")
    return folder
