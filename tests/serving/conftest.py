import pandas as pd
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.serving import export
from dcrnn_fast.serving.export.export import TOLERANCE
from tests.shop import calibrated_shop, compiled, shop

__all__ = ["calibrated_shop", "compiled", "shop"]


@pytest.fixture(scope="session")
def exported(shop, tmp_path_factory):
    """The run as an exported program that calls the operators in C++. Do not write into it."""
    path = tmp_path_factory.mktemp("exported") / "shop.pt2"
    assert export(shop / "run", path, backend="cpp") <= TOLERANCE
    return path


@pytest.fixture(scope="session")
def file(exported):
    return exported


@pytest.fixture(scope="session")
def ranker(shop):
    return Ranker.load(shop / "run")


@pytest.fixture
def table(shop):
    """The shop's rows without labels."""
    return pd.read_csv(shop / "tiny.csv", dtype={"user": str}).drop(columns=["clicked", "bought", "importance"])
