"""Every test starts from the same seed, and hypothesis from the same examples in CI."""

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
