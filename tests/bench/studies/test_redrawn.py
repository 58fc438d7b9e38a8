"""The study of other splits: the same rows in other splits, and differences on the same draw."""

import numpy as np
import pytest

from bench.studies.redrawn import DATA, MODELS, SHIPPED, TEST_TO_TRAIN, chosen, corrected_error, split_again, tables
from tests.bench.quality.toy import toy


def rows_of(dataset):
    """Every row of all splits, sorted; an unknown label is -1."""
    whole = np.concatenate([np.hstack([split.ids, split.dense, np.nan_to_num(split.labels, nan=-1)]) for split in dataset.splits.values()])
    return sorted(map(tuple, whole))


def test_other_splits_have_the_same_rows_and_sizes():
    dataset = toy()
    again = split_again(dataset, 1)
    assert {name: len(split) for name, split in again.splits.items()} == {name: len(split) for name, split in dataset.splits.items()}
    assert rows_of(again) == rows_of(dataset)


def test_every_seed_cuts_in_another_way_and_the_same_way_again():
    dataset = toy()
    one, same, other = (split_again(dataset, seed).split("test").ids for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("data", DATA)
def test_every_model_takes_the_committed_setting_of_its_data_set(data):
    for model in MODELS:
        setting, size = chosen(data, model)
        assert setting or model == SHIPPED, f"{model}, {size}: no setting"


def test_differences_are_those_on_the_same_draw():
    def row(model, seed, auc):
        return {"data": "hillstrom", "setting": model, "seed": seed, "auc": {"visit": auc, "conversion": auc}, "seconds": 1.0}

    rows = [row(SHIPPED, 1, 0.6), row(SHIPPED, 2, 0.8), row("lightgbm", 2, 0.9), row("lightgbm", 1, 0.5)]
    ((header, lines),) = tables({"rows": rows})
    assert header == ["model", *DATA]
    assert lines[1][1] == f"0.7000 (+0.0000 ± {0.1 * (1 + 2 * TEST_TO_TRAIN) ** 0.5:.4f})"


def test_the_error_over_splits_of_the_same_rows_is_that_over_tables():
    """Splits of one table agree more than tables do: the error corrected for that is the one that other tables show."""
    rng, test, train, splits = np.random.default_rng(0), 96, 202, 20
    means, errors = [], []
    for _ in range(300):
        table = rng.normal(size=test + train)
        values = [rng.permutation(table)[:test].mean() for _ in range(splits)]
        means.append(np.mean(values))
        errors.append(corrected_error(values))
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.25)
