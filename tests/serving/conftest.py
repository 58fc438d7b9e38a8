import pandas as pd
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.serving import export
from tests.shop import calibrated_shop, compiled, shop

__all__ = ["calibrated_shop", "compiled", "shop"]


@pytest.fixture(scope="session", autouse=True)
def _cache(own_cache):
    pass


@pytest.fixture(scope="session")
def file(shop, tmp_path_factory):
    """The run as an exported program. Do not write into it."""
    path = tmp_path_factory.mktemp("exported") / "shop.pt2"
    export(shop / "run", path, backend="cpp")
    return path


@pytest.fixture(scope="session")
def ranker(shop):
    return Ranker.load(shop / "run")


@pytest.fixture
def table(shop):
    """The shop's rows without labels."""
    return pd.read_csv(shop / "tiny.csv", dtype={"user": str}).drop(columns=["clicked", "bought", "importance"])
