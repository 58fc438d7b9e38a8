import pytest

from dcrnn_fast.errors import ConfigError
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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"RANK": "one"}, "RANK is 'one', expected a whole number, as torchrun sets it"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2', expected a whole number"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is '', expected a whole number"),
        ({"RANK": "9" * 5000}, "RANK is '9999999999"),
        ({"RANK": "2"}, "RANK=2 and WORLD_SIZE=2, expected RANK < WORLD_SIZE"),
    ],
)
def test_an_environment_that_is_no_place_is_refused_by_its_variable(environment, values, said):
    environment(**{"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"} | values)
    with pytest.raises(ConfigError) as caught:
        torchrun.place()
    assert said in str(caught.value)
    assert torchrun.is_first()
