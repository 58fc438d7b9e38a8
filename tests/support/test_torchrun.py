import pytest

from dcrnn_fast.support import torchrun


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, torchrun.Place(rank=5, count=16, local=1)),
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),  # a part of them
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),  # alone
    ],
)
def test_a_rank_of_several_knows_its_place(values, place, monkeypatch):
    for name in torchrun.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert torchrun.place() == place
    assert torchrun.is_first() == (place is None)
