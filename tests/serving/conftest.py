import pytest

from tests.shop import calibrated_shop, compiled, shop

__all__ = ["calibrated_shop", "compiled", "shop"]


@pytest.fixture(scope="session", autouse=True)
def _cache(own_cache):
    pass
