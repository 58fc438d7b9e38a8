"""What one rank does: its device, its random numbers, what it says, and how it compares itself with others."""

from importlib import import_module

import pytest
import torch
from torch import distributed as dist

from dcrnn_fast.data import BlockLoader
from dcrnn_fast.errors import ConfigError, RanksError
from dcrnn_fast.support.torchrun import Place
from dcrnn_fast.training.device import device_of_rank
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.gradient import BatchGradient
from dcrnn_fast.training.ranks import ONE, Ranks, joined
from tests.training.tiny import tiny_config

CPU = torch.device("cpu")


def rank(number, count=4, local=None):
    return Ranks(Place(number, count, number if local is None else local))


@pytest.fixture
def two_gpus(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_each_rank_takes_the_gpu_of_its_number_on_its_machine(two_gpus):
    for name in ("auto", "cuda"):
        assert device_of_rank(name, rank(3, local=1)) == torch.device("cuda", 1)
    assert two_gpus == [torch.device("cuda", 1)] * 2
    assert device_of_rank("cuda:1", ONE) == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "local", "said"),
    [
        ("cuda:1", 0, "device is 'cuda:1', but torchrun has started 4 processes, a GPU for each; use device: cuda"),
        ("auto", 2, "device is 'cuda:2', but PyTorch .* sees 2 GPUs"),
    ],
)
def test_ranks_that_would_share_a_gpu_are_refused(two_gpus, name, local, said):
    with pytest.raises(ConfigError, match=said):
        device_of_rank(name, rank(local))


def gradient_of(schema, dataset, ranks=ONE, **options):
    config = tiny_config(schema, **options)
    torch.manual_seed(0)
    model = build_model(describe(config, dataset), device=CPU, backend="reference")
    return BatchGradient(config, model, None, precision="float32", device=CPU, ranks=ranks)


class Alone(Ranks):
    """A rank that nobody answers: it takes its rows for those of all."""

    def __init__(self, number):
        super().__init__(Place(number, 4, number))

    def rows(self, *own):
        return own

    def add_gradients(self, parameters):
        pass


def test_random_numbers_follow_from_the_step_and_the_rank_alone(schema, dataset):
    batch = next(BlockLoader(dataset.split("train"), 32).batches())

    def loss(number, step):
        return float(gradient_of(schema, dataset, Alone(number))(batch, step)[0])

    losses = [loss(number, step) for number in range(2) for step in range(2)]
    assert len(set(losses)) == 4, "two ranks or two steps have the same dropout"
    torch.rand(7)
    assert loss(1, 1) == losses[3]


def test_ranks_that_differ_are_told_in_what(monkeypatch):
    here = rank(0, 2)
    monkeypatch.setattr(here, "_texts", lambda own: [own, '{"step": 5, "the sum of weight": 2.5}'])
    here.check_same(lambda: {"step": 5, "the sum of weight": 2.5})
    with pytest.raises(RanksError, match=r"rank 1 and rank 0 differ in the sum of weight: 2\.5 and 2\.0\. All ranks must"):
        here.check_same(lambda: {"step": 5, "the sum of weight": 2.0})


def be_rank_1(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_mistake_is_told_by_rank_0_alone(command, monkeypatch):
    mistake = ("train", "--data", "hillstrom", "--set", "model.stepz=3")
    code, out, err = command(*mistake)
    assert (code, out, err.count("error: ")) == (2, "", 1)
    be_rank_1(monkeypatch)
    assert command(*mistake) == (2, "", "")


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_rank_that_meets_one_that_has_failed_leaves_the_message_to_it(monkeypatch, has_ended):
    """On a loaded machine, the other may have ended before this one has joined the group."""
    store = dist.HashStore()
    if has_ended:
        dist.PrefixStore("dcrnn_fast/0", store).add("dcrnn_fast/failed", 1)

    def refused(*_, **__):
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(import_module("torch.distributed.rendezvous"), "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", refused)
    be_rank_1(monkeypatch)
    with pytest.raises(RanksError, match="rank 1 does not reach the other ranks") as caught, joined():
        pytest.fail("the block began")
    assert caught.value.shown_by_another_rank is has_ended
