import numpy as np
import pytest
import torch

from dcrnn_fast.training import train
from dcrnn_fast.training.loop.oov_dropout import OOVDropout
from tests.training.test_run import weights
from tests.training.tiny import tiny_config


def test_a_rare_id_is_read_as_out_of_vocabulary_more_often_than_a_frequent_one(dataset):
    """The probability is alpha / (alpha + n) for an id that the train rows hold n times."""
    dropout = OOVDropout(dataset, alpha=100.0, device=torch.device("cpu"))
    ids = torch.from_numpy(np.array(dataset.split("train").ids)).long()
    torch.manual_seed(0)
    replaced = torch.stack([(dropout(ids) == 0).double() for _ in range(50)]).mean(dim=0)
    for column, field in enumerate(("shape", "colour")):
        counts = torch.bincount(ids[:, column])
        for value in range(1, dataset.meta.fields[field]):
            share = float(replaced[ids[:, column] == value, column].mean())
            assert share == pytest.approx(100 / (100 + int(counts[value])), abs=0.02), f"{field}, id {value}"


def test_a_bucketed_field_keeps_its_ids(dataset):
    """Its id 0 is no category: it means that the number is missing."""
    ids = torch.from_numpy(np.array(dataset.split("train").ids)).long()
    read = OOVDropout(dataset, alpha=10**6, device=torch.device("cpu"))(ids)
    assert not read[:, :2].any()
    assert torch.equal(read[:, 2], ids[:, 2])


def test_out_of_vocabulary_dropout_trains_the_row_of_unseen_ids(schema, finished, tmp_path):
    train(tiny_config(schema, oov_dropout=0.0), tmp_path / "off")
    assert weights(tmp_path / "off") != weights(finished)
