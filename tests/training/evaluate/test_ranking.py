"""NDCG, MRR, hit rate and GAUC within groups: each group's value by its definition, means, undefined groups, and intervals."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from dcrnn_fast.training import compare, evaluate, write_report
from dcrnn_fast.training.evaluate.ranking import add_ranking, names_of, per_group, ranking_intervals


def drawn(groups=200, seed=0):
    """Rows of groups of 1 to 12, with other scores each; some groups hold one class, and some labels are unknown."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rng.integers(1, 13, groups))
    scores, order = rng.random(len(group)), rng.permutation(len(group))
    labels = np.where(rng.random(len(group)) < 0.05, np.nan, rng.random(len(group)) < scores / 2)
    return labels[order], scores[order], group[order]


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_each_groups_values_are_those_of_its_definition(k):
    labels, scores, group = drawn()
    found, at, undefined = per_group(labels, scores, group, k), 0, 0
    for number in np.unique(group[~np.isnan(labels)]):
        rows = (group == number) & ~np.isnan(labels)
        y, p = labels[rows], scores[rows]
        if not 0 < y.sum() < len(y):
            undefined += 1
            continue
        first = 1 + int(np.flatnonzero(y[np.argsort(-p)])[0])
        want = roc_auc_score(y, p), ndcg_score([y], [p], k=k), 1 / first, float(first <= k)
        assert [values[at] for values in found.values.values()] == pytest.approx(want)
        assert [weights[at] for weights in found.weights.values()] == [len(y), 1, 1, 1]
        at += 1
    assert (len(found.values["mrr"]), found.undefined) == (at, undefined)


def test_a_tasks_metrics_are_means_over_the_defined_groups():
    labels, scores = np.array([1.0, 0, 0, 0, 1, 1, 0]), np.array([0.9, 0.1, 0.8, 0.7, 0.6, 0.3, 0.2])
    metrics = {"click": {}}
    add_ranking(metrics, {"click": labels}, {"click": scores}, np.array([7, 7, 9, 9, 9, 4, -1]), 2)
    no_group = {"click": {}}
    add_ranking(no_group, {"click": np.array([1.0, np.nan])}, {"click": np.array([0.1, 0.2])}, np.array([1, -1]), 10)
    assert no_group["click"] == dict.fromkeys(names_of(10)) | {"groups": 1, "groups_undefined": 1}
    assert metrics["click"] == {
        "gauc": pytest.approx(2 / 5), "ndcg@2": 0.5, "mrr": pytest.approx(2 / 3), "hit_rate@2": 0.5, "groups": 3, "groups_undefined": 1
    }  # fmt: skip


def test_a_constant_ranks_no_better_than_chance():
    """Though the positive is always the first row of its group."""
    labels, group = np.tile([1.0, 0.0, 0.0, 0.0], 5000), np.repeat(np.arange(5000), 4)
    found = per_group(labels, np.full(len(labels), 0.5), group, 1)
    assert found.values["hit_rate@1"].mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 5000) ** 0.5)
    assert found.values["mrr"].mean() == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.02)


def test_intervals_hold_the_mean_and_narrow_with_more_groups():
    widths = []
    for groups in (100, 1600):
        labels, scores, group = drawn(groups)
        metrics = {"click": {}}
        add_ranking(metrics, {"click": labels}, {"click": scores}, group, 3)
        found = ranking_intervals(labels, scores, group, 3, 500)
        assert all(low < metrics["click"][name] < high for name, (low, high) in found.items())
        widths.append(found["ndcg@3"][1] - found["ndcg@3"][0])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_a_difference_of_equal_scores_is_0_and_of_better_ones_above():
    labels, scores, group = drawn(500)
    better = scores + np.nan_to_num(labels)
    assert set(map(tuple, ranking_intervals(labels, scores, group, 3, 200, other=scores).values())) == {(0.0, 0.0)}
    assert all(low > 0 for low, _ in ranking_intervals(labels, better, group, 3, 200, other=scores).values())


def test_evaluate_compare_and_the_report_show_them(finished, tmp_path):
    entry = evaluate(finished, bootstrap=100, k=3)["metrics"]["click"]
    assert {"gauc", "ndcg@3", "mrr", "hit_rate@3", "groups", "groups_undefined"} <= set(entry)
    assert set(entry["intervals"]) == {"auc", "log_loss", "calibration", *names_of(3)}
    assert set(names_of(5)) <= set(compare([finished, finished], k=5)["runs"][1]["differences"]["click"])
    write_report([finished, finished], tmp_path / "page.html", k=5)
    text = (tmp_path / "page.html").read_text()
    assert all(title in text for title in ("NDCG@5", "MRR", "hit rate@5", "groups hold one class alone"))
