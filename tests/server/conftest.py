import pytest

from dcrnn_fast import Ranker
from tests.shop import calibrated_shop, compiled, shop

__all__ = ["calibrated_shop", "compiled", "shop"]


@pytest.fixture(scope="session", autouse=True)
def _cache(own_cache):
    pass


@pytest.fixture(scope="session")
def ranker(calibrated_shop):
    return Ranker.load(calibrated_shop / "run")
