"""The drawn logs of the study have the sharing that they are for, and ids as `prepare` gives them."""

import numpy as np
import pytest

from bench.studies.large_log import BEST, SHIPPED, Scope, alike, draw, encode, tables

SCOPE = Scope(rows=60_000, users=300, items=200, categories=10)


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.9, 1.0])
def test_the_tasks_effects_correlate_as_asked_and_have_one_size(shared):
    values = alike(np.random.default_rng(0), shared, 100_000)
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(shared, abs=0.01)
    assert values.std(axis=0) == pytest.approx([1, 1], abs=0.01)


def test_labels_are_drawn_from_the_probabilities_and_a_consume_is_a_click():
    dataset, probability = draw(0.3, 0, SCOPE)
    labels = dataset.split("test").labels
    assert len(probability) == len(labels) == 6000
    assert labels.mean(axis=0) == pytest.approx(probability.mean(axis=0), abs=0.01)
    assert (labels[:, 1] <= labels[:, 0]).all()


def test_ids_that_the_train_rows_lack_are_0():
    encoded, sizes = encode({"a": np.array([7, 3, 7, 5, 9, 3])}, 3)
    assert (encoded[:, 0].tolist(), sizes) == ([2, 1, 2, 0, 0, 1], {"a": 3})


def test_every_seed_draws_another_log_and_the_same_one_again():
    one, again, other = (draw(0.3, seed, SCOPE)[0].split("train") for seed in (0, 0, 1))
    assert np.array_equal(one.ids, again.ids)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.labels, other.labels)


def test_differences_are_those_on_the_same_log():
    def row(model, seed, auc):
        return {
            "data": "shared 0.3",
            "setting": model,
            "seed": seed,
            "seconds": 5.0,
            "test": {"click": {"auc": auc}, "consume": {"auc": 0.5}},
        }

    rows = [row(SHIPPED, 0, 0.7), row(SHIPPED, 1, 0.6), row("gdcn", 1, 0.61), row("gdcn", 0, 0.73), row(BEST, 0, 0.8)]
    lines = {line[0]: line[1:] for line in tables({"rows": rows})[0][1]}
    assert lines["GDCN and towers"][0] == "0.6700 (+0.0200 ± 0.0100)"
    assert lines["GDCN and towers"][2] == "not measured"
    assert lines[BEST][-1] == "-"
