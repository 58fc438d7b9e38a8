import pytest

from dcrnn_fast import Ranker
from tests.shop import calibrated_shop, compiled, shop

__all__ = ["calibrated_shop", "compiled", "shop"]


@pytest.fixture(scope="session")
def ranker(calibrated_shop):
    return Ranker.load(calibrated_shop / "run")


@pytest.fixture
def lasting():
    """Takes a server that runs and returns it; at the end of the test it stops."""
    running = []

    def keep(server):
        running.append(server)
        return server

    yield keep
    for one in running:
        one.stop()


@pytest.fixture
def serve(lasting):
    """Starts a server in Python of a ranker."""
    from .process import OnAThread

    return lambda ranker, **options: lasting(OnAThread(ranker, load=lambda ranker: ranker, **options))
