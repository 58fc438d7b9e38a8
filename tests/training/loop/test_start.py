"""A new run starts at logistic regression on its ids, as strong in a field as the train rows show, and with bins of its numbers."""

import numpy as np
import pytest
import torch

import dcrnn_fast
from dcrnn_fast.data import PackedDataset, PackedSplit
from dcrnn_fast.data.packed.meta import PackedMeta
from dcrnn_fast.training import load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.loop.first_order import fields_of, start_of
from dcrnn_fast.training.loop.learned import start_heads
from dcrnn_fast.training.loop.start import dense_edges
from tests.training.runs import SCENARIOS
from tests.training.tiny import opposite, tiny_config, with_splits, write_table


def drawn(fields, logits, *, labels=None, shared=None, pooled=None, weight=None):
    """Packed train rows of these columns of ids, with one label drawn from its logit, and the rng's seed in their name."""
    ids = np.stack(list(fields.values()), axis=1).astype(np.int32)
    if labels is None:
        labels = (np.random.default_rng(5).random(len(ids)) < 1 / (1 + np.exp(-logits))).astype(np.float32)[:, None]
    tasks = ("click", "buy")[: labels.shape[1]]
    meta = PackedMeta(
        "drawn", tasks, len(tasks) > 1, "chain", {name: int(column.max()) + 1 for name, column in fields.items()}, (), None,
        weight is not None, {"train": len(ids)}, {}, {}, {}, 1, shared=shared or {}, pooled=pooled or {},
    )  # fmt: skip
    return PackedDataset("drawn", meta, {"train": PackedSplit("train", ids, None, labels, weight, None)})


def fitted(dataset, **options):
    return start_of(dataset, **{"chain": True, "weighted": False} | options)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def log():
    """20,000 rows of 500 items whose effects are known, and of a column that tells nothing."""
    rng = np.random.default_rng(3)
    item, noise, effect = rng.integers(1, 500, 20_000), rng.integers(1, 3000, 20_000), rng.normal(0, 0.8, 500)
    return item, noise, effect, effect[item] - 1.0


def test_effects_are_near_the_true_ones_and_noise_has_none(log):
    item, noise, effect, logits = log
    found = fitted(drawn({"noise": noise, "item": item}, logits))
    assert np.corrcoef(found.effects[-499:, 0], effect[1:])[0, 1] > 0.85
    assert found.variances[0, 0] == 0 < 0.4 < found.variances[1, 0] < 0.9
    assert abs(found.intercepts[0] + 1.0) < 0.1
    assert not found.effects[:3000].any()
    narrow = fitted(drawn({"noise": np.minimum(noise, 99), "item": item}, logits))
    assert (narrow.variances[:, 0] > 0).tolist() == [False, True], "where one field is larger than the other or smaller"


@pytest.mark.parametrize("copy", ["title", "session"])
def test_a_copy_and_a_nearly_unique_column_add_nothing(log, rng, copy):
    item, _, _, logits = log
    columns = {"title": rng.permutation(500)[item], "session": np.arange(len(item)) // 2 + 1}
    alone, beside = fitted(drawn({"item": item}, logits)), fitted(drawn({"item": item, copy: columns[copy]}, logits))
    together = [beside.effects[item, 0] + beside.effects[item.max() + 1 + columns[copy], 0], alone.effects[item, 0]]
    assert np.abs(np.subtract(*together)).mean() < 0.05
    assert (beside.variances > 0).sum() == 1


def test_an_id_in_columns_that_share_embeddings_has_one_effect(log, rng):
    item, _, effect, _ = log
    last = rng.permutation(item)
    last[:2], item = (item.max(), item.max()), item
    found = fitted(drawn({"item": item, "last": last}, effect[item] + effect[last] - 1.0, shared={"last": "item"}))
    assert found.effects.shape == (item.max() + 1, 1)
    assert np.corrcoef(found.effects[1:, 0], effect[1:])[0, 1] > 0.9


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_effects_of_several_values_are_pooled_as_the_model_pools_them(log, rng, pooling):
    _, _, effect, _ = log
    tags = rng.integers(0, 500, (20_000, 3))
    tags[:2, :] = 499
    held = (tags != 0).sum(axis=1)
    total = np.where(tags != 0, effect[tags], 0).sum(axis=1) / (np.maximum(held, 1) if pooling == "mean" else 1)
    columns = {f"tags[{at}]": tags[:, at] for at in range(3)}
    dataset = drawn(
        columns, 1.5 * total - 1.0, shared={"tags[1]": "tags[0]", "tags[2]": "tags[0]"},
        pooled={"tags": {"columns": list(columns), "pooling": pooling}},
    )  # fmt: skip
    found = fitted(dataset)
    assert not found.effects[0].any()
    assert np.corrcoef(found.effects[1:, 0], effect[1:])[0, 1] > 0.8


def test_a_conditional_is_fitted_to_the_rows_with_the_event_before(log, rng):
    item, _, effect, _ = log
    click = rng.random(len(item)) < 0.5
    buy = click & (rng.random(len(item)) < 1 / (1 + np.exp(-effect[item])))
    found = fitted(drawn({"item": item}, None, labels=np.stack([click, buy], axis=1).astype(np.float32)))
    assert np.abs(found.effects[:, 0]).max() < 0.1, "clicks are drawn without an effect"
    assert np.corrcoef(found.effects[1:, 1], effect[1:])[0, 1] > 0.8


def test_rows_of_weight_0_do_not_count(log):
    item, _, _, logits = log
    weight = (np.arange(len(item)) % 2).astype(np.float32)
    half = drawn({"item": item[1::2]}, logits[1::2], labels=drawn({"item": item}, logits).split("train").labels[1::2])
    labels = drawn({"item": item}, logits).split("train").labels
    ours, theirs = fitted(drawn({"item": item}, logits, labels=labels, weight=weight), weighted=True), fitted(half)
    np.testing.assert_allclose(ours.effects[: len(theirs.effects)], theirs.effects, atol=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_a_task_of_one_class_has_a_finite_intercept_and_no_effects(label):
    found = fitted(drawn({"item": np.arange(1, 101)}, None, labels=np.full((100, 1), label, np.float32)))
    assert np.isfinite(found.intercepts).all()
    assert not found.effects.any()


def test_with_heads_of_zeros_a_model_is_logistic_regression(log):
    item, _, _, logits = log
    dataset = drawn({"item": item}, logits)
    found, ids = fitted(dataset), torch.from_numpy(dataset.split("train").ids[:50]).long()
    model = dcrnn_fast.DCRNN(dataset.meta.fields, embedding_dim=4, tower_dims=(8,), tasks=("click",)).eval()
    start_heads(model, found)
    torch.nn.init.zeros_(model.towers.head.private_weight)
    expected = torch.from_numpy(found.effects[item[:50], 0] + found.intercepts[0]).float()
    torch.testing.assert_close(model(ids)[:, 0], expected)
    start_heads(model, found, add=True)
    torch.testing.assert_close(model(ids)[:, 0], 2 * expected)


def test_effects_that_many_rows_decide_are_left_to_training(log, rng):
    item, _, effect, _ = log
    hour = rng.integers(1, 25, len(item))
    dataset = drawn({"hour": hour, "item": item}, effect[item] + rng.normal(0, 0.5, 25)[hour] - 1.0)
    found = fitted(dataset)
    settled = found.settled(fields_of(dataset.meta)[0])
    assert settled[1:25].all(), "each hour has 800 rows"
    assert not settled[25:].any(), "each item has 40"
    np.testing.assert_array_equal(settled[:25], found.effects[:25])


def test_labels_of_pure_noise_end_no_worse_than_the_constant(tmp_path):
    table = write_table(tmp_path, rows=600)
    lines = (tmp_path / "tiny.csv").read_text().splitlines()
    labels = [line.rsplit(",", 2)[1:] for line in lines[1:]]
    order = np.random.default_rng(0).permutation(len(labels))
    rows = [",".join([line.rsplit(",", 2)[0], *labels[at]]) for line, at in zip(lines[1:], order, strict=True)]
    (tmp_path / "tiny.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    valid = train(tiny_config(table, model__first_order=True), tmp_path / "run")["valid"]
    own, constant = (sum(valid[task][key] for task in ("click", "buy")) for key in ("shifted_log_loss", "constant_log_loss"))
    assert own <= constant * (1 + 1e-6)


def test_a_run_whose_validation_rows_contradict_it_starts_at_the_constant(tmp_path):
    table = with_splits(tmp_path, ("valid", "train", "test"), opposite("valid"))
    found = train(tiny_config(table, model__first_order=True, optimiser__epochs=1), tmp_path / "run")
    assert found["train"]["best_step"] == 0
    assert found["valid"]["click"]["auc"] == pytest.approx(0.5)


def gone_on(dataset, before):
    """The effects to add, where the rows' logits are at the earlier intercept."""
    z = np.full((len(dataset.split("train")), 1), before.intercepts[0])
    return fitted(dataset, before=before, logits=z)


def test_effects_of_which_much_is_known_move_little(log):
    item, _, _, logits = log
    dataset = drawn({"item": item}, logits)
    known = fitted(dataset)
    unknown = known._replace(curvatures=np.zeros_like(known.curvatures))
    ours, others = (np.abs(gone_on(dataset, before).effects[1:]).mean() for before in (known, unknown))
    assert ours < 0.6 * others


def test_a_day_without_a_positive_label_keeps_what_is_known(log):
    item, _, _, logits = log
    known = fitted(drawn({"item": item}, logits))
    after = gone_on(drawn({"item": item}, None, labels=np.zeros((len(item), 1), np.float32)), known)
    np.testing.assert_array_equal(after.curvatures, known.curvatures)
    np.testing.assert_array_equal(after.variances, known.variances)


def test_what_few_days_alone_can_tell_adds_up_over_days(log):
    item, _, effect, _ = log
    found, effects, intercept, of_one_day = None, np.zeros((500, 1)), 0.0, []
    for ids in np.split(item, 40):
        ids = np.append(ids, 499)
        dataset = drawn({"item": ids}, effect[ids] - 1.0)
        of_one_day.append(fitted(dataset).effects[1:, 0])
        found = fitted(dataset, before=found, logits=None if found is None else effects[ids] + intercept)
        effects, intercept = effects + found.effects, intercept + found.intercepts[0]
    assert max(np.corrcoef(one, effect[1:])[0, 1] for one in of_one_day if one.any()) < 0.5
    assert np.corrcoef(effects[1:, 0], effect[1:])[0, 1] > 0.8


@pytest.mark.parametrize(("before", "now"), [(0.01, 0.1), (0.02, 0.25), (0.95, 0.5)])
def test_another_base_rate_moves_the_intercept_alone(log, before, now):
    item, noise, _, _ = log
    labels = (np.random.default_rng(7).random((len(item), 1)) < now).astype(np.float32)
    z = np.log(before / (1 - before))
    dataset = drawn({"noise": noise, "item": item}, None, labels=labels)
    known = fitted(dataset)._replace(variances=np.zeros((2, 1), np.float32))
    found = fitted(dataset, before=known._replace(scores=0 * known.scores), logits=np.full((len(item), 1), z))
    assert found.intercepts[0] == pytest.approx(np.log(now / (1 - now)) - z, abs=0.1)
    assert not found.variances.any()


def test_edges_rise_from_the_smallest_to_the_largest_value():
    rng = np.random.default_rng(0)
    mostly_zero = np.where(rng.random(5000) < 0.95, 0, 1 + rng.exponential(size=5000))
    dense = np.stack([rng.normal(size=5000), mostly_zero, rng.integers(0, 3, 5000)], axis=1).astype(np.float32)
    found = dense_edges(dense, bins=16)
    for column, edges in enumerate(found):
        assert 2 <= len(edges) <= 17
        assert (edges[1:] > edges[:-1]).all(), column
        assert (edges[0], edges[-1]) == (dense[:, column].min(), dense[:, column].max())
    assert len(found[1]) > 10, "plain quantiles of this column would be 0, except the last one"
    (edges,) = dense_edges(np.full((10, 1), 3.0, dtype=np.float32), bins=8)
    assert torch.equal(edges, torch.tensor([3.0, 4.0])), "a column of one value has one bin"


def test_a_weight_file_keeps_the_edges_of_the_train_rows(run_of):
    run = run_of(SCENARIOS)
    model, _ = load_model(run.folder / "model.safetensors")
    dataset = prepare_data(run.config)
    (edges,) = dense_edges(np.asarray(dataset.split("train").dense), bins=4)
    bins = len(edges) - 1
    assert torch.equal(model.features.dense_embedding.lower[0, :bins], edges[:-1])
    assert torch.equal(model.features.dense_embedding.scale[0, :bins], 1 / (edges[1:] - edges[:-1]))
