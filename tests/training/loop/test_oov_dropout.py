from pathlib import Path

import numpy as np
import pytest
import torch

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit
from dcrnn_fast.data.inspect.oov import LEAST, LITTLE, MOST, least_strength
from dcrnn_fast.training.loop.start import OOVDropout


def test_a_rare_id_is_read_as_unseen_more_often_than_a_frequent_one(dataset):
    """The probability is strength / (strength + n) for an id that the train rows hold n times. A bucketed field keeps its ids."""
    dropout = OOVDropout(dataset, 100.0, torch.device("cpu"))
    ids = torch.from_numpy(np.array(dataset.split("train").ids)).long()
    torch.manual_seed(0)
    replaced = torch.stack([(dropout(ids) == 0).double() for _ in range(50)]).mean(dim=0)
    for column, field in enumerate(("shape", "colour")):
        counts = torch.bincount(ids[:, column])
        for value in range(1, dataset.meta.fields[field]):
            share = float(replaced[ids[:, column] == value, column].mean())
            assert share == pytest.approx(100 / (100 + int(counts[value])), abs=0.02), f"{field}, id {value}"
    read = OOVDropout(dataset, 10**6, torch.device("cpu"))(ids)
    assert not read[:, :2].any()
    assert torch.equal(read[:, 2], ids[:, 2])


def log(train_ids, valid_ids, **meta):
    """A data set of these ids. Column f is a field of its own unless ``meta`` says more."""
    splits = {name: np.array(ids, np.int32) for name, ids in (("train", train_ids), ("valid", valid_ids))}
    size = 1 + max(int(ids.max()) for ids in splits.values())
    fields = {f"field{column}": size for column in range(len(train_ids[0]))}
    words = {field: ["<oov>", *map(str, range(1, size))] for field in fields}
    rows = {name: len(ids) for name, ids in splits.items()}
    about = PackedMeta("log", ("click",), False, "independent", fields, (), None, False, rows, words, {}, {}, 1, **meta)
    made = {name: PackedSplit(name, ids, None, np.zeros((len(ids), 1), np.float32), None, None) for name, ids in splits.items()}
    return PackedDataset(Path("log"), about, made)


def part_read_as_unseen(dataset, draws=400):
    """By column, the part of the train cells, and the strengths."""
    dropout, ids = OOVDropout(dataset, "auto", torch.device("cpu")), torch.from_numpy(np.array(dataset.split("train").ids)).long()
    torch.manual_seed(0)
    read = torch.stack([dropout(ids) for _ in range(draws)])
    return (read == 0).double().mean(dim=(0, 1)).tolist(), dropout.strengths


def test_training_reads_as_many_cells_as_unseen_as_the_validation_rows():
    """Of the first field 60% are new there, of the second none: each has a strength of its own."""
    train_ids = [[1 + row % 20, 1 + row % 4] for row in range(200)]
    valid_ids = [[0 if row < 60 else 1, 1] for row in range(100)]
    parts, strengths = part_read_as_unseen(log(train_ids, valid_ids))
    assert parts[0] == pytest.approx(0.6, abs=0.01)
    assert strengths["field0"] == pytest.approx(15, rel=1e-3)  # each id occurs 10 times: 15 / (15 + 10)
    assert strengths["field1"] == 10


@pytest.mark.parametrize(
    ("train_ids", "valid_ids", "part"),
    [
        ([[row % 2] for row in range(100)], [[0], [0], [0], [1]], 0.75),  # cells that are unseen in training anyway count
        ([[1 + row % 5] for row in range(100)], [[0]] * 10, MOST),  # all validation cells are new, and some ids are still read
    ],
)
def test_the_part_that_is_read_as_unseen_at_the_extremes(train_ids, valid_ids, part):
    assert part_read_as_unseen(log(train_ids, valid_ids))[0][0] == pytest.approx(part, abs=0.01)


def test_fields_that_share_embeddings_count_together_and_are_solved_apart():
    train_ids = [[1 + row % 5, 1 + row % 5] for row in range(100)]
    valid_ids = [[0, 1]] * 5 + [[1, 1]] * 5
    parts, strengths = part_read_as_unseen(log(train_ids, valid_ids, shared={"field1": "field0"}))
    assert parts[0] == pytest.approx(0.5, abs=0.01)
    assert strengths["field0"] == pytest.approx(40, rel=1e-3)  # 20 cells an id in each of the two fields
    assert strengths["field1"] == 10


def test_of_several_values_the_cells_before_the_last_known_one_are_judged():
    """An empty place and an unseen value are both id 0; places are filled from the first on, so a 0 before a known id was unseen."""
    pooled = {"tags": {"columns": ["field0", "field1", "field2"], "pooling": "mean"}}
    shared = {"field1": "field0", "field2": "field0"}
    train_ids = [[1 + row % 4, 1 + row % 4, 0] for row in range(100)]
    valid_ids = [[0, 1, 0], [2, 1, 0], [1, 0, 0], [0, 0, 0]]  # of two judged cells one is unseen
    parts, strengths = part_read_as_unseen(log(train_ids, valid_ids, pooled=pooled, shared=shared))
    assert list(strengths) == ["tags"]
    assert parts == [pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01), 1.0]


def drawn(ids, rows, strength, seed=0):
    """Cells of ids, each in as many rows, and labels whose rates by id have a beta distribution of this strength around 0.3."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.3 * strength, 0.7 * strength, ids)
    cells = np.repeat(np.arange(1, ids + 1, dtype=np.int32), rows)
    return cells[:, None], (rng.random(len(cells)) < rates[cells - 1]).astype(np.float32)[:, None]


@pytest.mark.parametrize(("strength", "rows"), [(0.5, 3), (2.0, 4), (4.0, 20)])
def test_the_least_strength_is_twice_that_of_the_labels(strength, rows):
    assert least_strength(*drawn(5000, rows, strength)) == pytest.approx(2 * strength, rel=0.15)


def test_the_least_strength_of_ids_that_tell_nothing_and_of_those_that_do():
    ids, labels = drawn(500, 10, 50.0)
    assert least_strength(ids, labels) == LEAST
    assert least_strength(ids, np.full_like(labels, np.nan)) == LEAST
    assert least_strength(np.zeros_like(ids), labels) == LEAST
    assert least_strength(np.arange(1, 5001, dtype=np.int32)[:, None], labels) == LEAST  # each row another: nothing is known
    ids, _ = drawn(100, 5, 1.0)
    assert least_strength(ids, (ids % 3 == 0).astype(np.float32)) == LITTLE  # they tell all


def test_the_task_of_which_ids_tell_least_counts():
    ids, known = drawn(2000, 6, 1.0)
    other = drawn(2000, 6, 3.0, seed=1)[1]
    assert least_strength(ids, np.hstack([known, other])) == least_strength(ids, other)
    hidden, shown = known.copy(), np.arange(len(ids)) % 6 < 4
    hidden[~shown] = np.nan
    assert least_strength(ids, hidden) == least_strength(ids[shown], known[shown])


def test_unseen_cells_and_other_columns_change_no_least_strength():
    ids, labels = drawn(1000, 6, 1.0)
    unseen = np.vstack([ids, np.zeros_like(ids)]), np.vstack([labels, 1 - labels])
    beside = np.hstack([ids, np.zeros_like(ids)]), labels
    assert least_strength(*unseen) == least_strength(*beside) == least_strength(ids, labels)
