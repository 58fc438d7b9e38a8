import pytest

from dcrnn_fast.support import torchrun


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables that torchrun sets; those that are not given are absent."""

    def setting(**values):
        for name in torchrun.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return setting


def test_a_rank_knows_its_place(environment):
    environment(RANK="5", WORLD_SIZE="16", LOCAL_RANK="1")
    assert torchrun.place() == torchrun.Place(rank=5, count=16, local=1)
    assert not torchrun.is_first()


@pytest.mark.parametrize(
    "values", [{}, {"RANK": "1", "WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}], ids=["no", "part of", "alone in"]
)
def test_a_process_outside_of_torchrun_or_alone_has_no_place(environment, values):
    environment(**values)
    assert torchrun.place() is None
    assert torchrun.is_first()
