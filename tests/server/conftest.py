import pytest

from dcrnn_fast import Ranker
from tests.shop import calibrated_shop, compiled, shop

__all__ = ["calibrated_shop", "compiled", "shop"]


@pytest.fixture(scope="session")
def ranker(calibrated_shop):
    return Ranker.load(calibrated_shop / "run")


@pytest.fixture
def serve():
    """Starts a server in Python of a ranker."""
    from dcrnn_fast.serving.http.app import Served

    from .on_a_thread import OnAThread

    running = []

    def begin(ranker, **options):
        running.append(OnAThread(ranker, load=lambda ranker: Served(ranker, "0" * 12, "run", "0", "0"), **options))
        return running[-1]

    yield begin
    for one in running:
        one.stop()
