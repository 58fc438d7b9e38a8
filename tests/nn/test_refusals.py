"""Every public function names the argument that it cannot use; the operators' own tests are in tests/operators/."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from dcrnn_fast import (
    DCRNN,
    GDCN,
    CrossRNN,
    DCNv2,
    DcrnnFastError,
    RowWiseAdagrad,
    ScenarioCrossRNN,
    SharingPlan,
    UncertaintyWeighting,
    checked,
    counterfactual_losses,
    reference,
)
from dcrnn_fast.data import BlockLoader, PackedSplit, open_packed, prepare
from dcrnn_fast.nn.cpu_layers import Embedding
from dcrnn_fast.nn.inference import recorder_for
from dcrnn_fast.nn.losses import task_losses
from dcrnn_fast.ops import backends
from dcrnn_fast.reference import PiecewiseLinearEmbedding
from dcrnn_fast.training import evaluate, load_config, load_model, train
from tests.nn import test_pooling
from tests.nn.models import SIZES, batch
from tests.nn.test_pooling import pool_of
from tests.nn.test_scenarios import PLAN as SCENARIOS
from tests.refusals import refused, row, rows

zeros = torch.zeros
Z, LABELS = zeros(3, 2), torch.ones(3, 2)
NO_FLOATS = [None, "x", [1.0], Z.long(), Z.to(torch.complex64), Z[0, 0]]
PLAN = SharingPlan.from_ratio("rows", 2, 4, 0.5)
SPLIT = PackedSplit("train", np.zeros((2, 1), np.int32), None, np.zeros((2, 1), np.float32), None, None)

TENSORS = {
    "logits": [lambda bad: task_losses(bad, LABELS), lambda bad: DCRNN([2]).loss(bad, LABELS)],
    "labels": [lambda bad: task_losses(Z, bad), lambda bad: DCRNN([2]).loss(Z, bad)],
    "losses": [UncertaintyWeighting(2)],
    "x0": [CrossRNN(PLAN), reference.CrossRNN(PLAN), DCNv2(4, 2), reference.DCNv2(4, 2)],
}


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in TENSORS.items() for call in calls])
def test_a_tensor_of_another_type_or_shape_is_named(name, call):
    for bad in [*NO_FLOATS, torch.zeros(3, 5, 7, 2)]:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: got .*, expected "):
            call(bad)


@pytest.mark.parametrize("weigh", [lambda w: task_losses(Z, LABELS, w), lambda w: DCRNN([2]).loss(Z, LABELS, sample_weight=w)])
@pytest.mark.parametrize("weight", ["x", [1.0], Z, Z[:2, 0], Z[:, 0].to(torch.complex64), Z[:, 0] - 1, Z[:, 0] * math.nan])
def test_a_sample_weight_that_is_none_is_named(weigh, weight):
    with pytest.raises((TypeError, ValueError), match=r"^sample_weight: got "):
        weigh(weight)


ARGUMENTS = [
    ("labels", lambda: task_losses(Z, LABELS.to("meta"))),
    *((name, lambda kw={name: bad}: DCRNN([5, 6], **kw)) for name, bad in [
        ("device", "banana"), ("device", []), ("dtype", torch.int32), ("dtype", "float32"), ("dtype", torch.complex64),
        ("embedding_dim", 2**62), ("num_dense", 2**62),
    ]),
    ("tower_dims[0]", lambda: DCRNN([5], tower_dims=[2**62])),
    ("num_embeddings[0]", lambda: DCRNN([2**62])),
    ("device", lambda: backends.resolve("auto", device="banana")),
    ("plan", lambda: CrossRNN(3)),
    ("recompute", lambda: CrossRNN(PLAN, recompute="x")),
    ("device", lambda: CrossRNN(PLAN, device="x")),
    ("dtype", lambda: CrossRNN(PLAN, dtype=torch.int8)),
    ("device", lambda: UncertaintyWeighting(2, device="x")),
    *((name, lambda kind=kind, sizes=sizes: kind(*sizes)) for kind in (DCNv2, GDCN, reference.DCNv2) for name, sizes in [
        ("in_features", (0, 3)), ("in_features", ("5", 3)), ("num_layers", (5, 0)), ("num_layers", (5, None)), ("num_layers", (5, 2**62)),
    ]),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, None)),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, ("a",))),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, (1.5,))),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, (1, 0))),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, (4,))),
    *((name, lambda kw={name: bad}: replace(PLAN, **kw)) for name, bad in [("num_tasks", 0), ("steps", 2.0), ("rank", 2.5)]),
    ("field_dims", lambda: SharingPlan.from_fields("rows", 2, 4, [0])),
    ("field_dims", lambda: SharingPlan.from_fields("rows", 2, [-4, 8], [0])),
    ("shared_fields", lambda: SharingPlan.from_fields("rows", 2, [4, 4], [0.5])),
    ("dim", lambda: SharingPlan.from_ratio("rows", 2, 2**62, 0.5)),
    ("share_ratio", lambda: SharingPlan.from_ratio("rows", 2, 8, math.nan)),
    ("bytes_per_value", lambda: PLAN.cost("x")),
    *((name, lambda kw={name: bad}: BlockLoader(SPLIT, **{"batch_size": 2} | kw)) for name, bad in [
        ("batch_size", "a"), ("batch_size", 1.5), ("seed", None), ("block_rows", 0), ("window_blocks", 2.5),
        ("shuffle", "x"), ("shards", 0), ("shard", 1), ("shard", -1),
    ]),
    ("split", lambda: BlockLoader(None, 2)),
    ("epoch", lambda: BlockLoader(SPLIT, 2).batches("x")),
    ("start", lambda: BlockLoader(SPLIT, 2).batches(0, 1.5)),
    *((name, lambda kw={name: bad}: prepare("hillstrom", **kw)) for name, bad in [
        ("seed", "x"), ("seed", True), ("seed", 2**80), ("valid_fraction", None), ("cache_dir", 3), ("cache_dir", "a\0b"), ("encoding", 3),
    ]),
    ("data", lambda: prepare(3)),
    ("path", lambda: open_packed(None)),
    ("path", lambda: load_model(None)),
    ("path", lambda: load_config("a\0b")),
    ("overrides", lambda: load_config(None, {1: 2})),
    ("run", lambda: evaluate(b"x")),
    ("config", lambda: train(None, "run")),
    ("output", lambda: train(load_config(None, {"data": "hillstrom"}), 3)),
    ("dataset", lambda: train(load_config(None, {"data": "hillstrom"}), "run", dataset=3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call"), ARGUMENTS, ids=[f"{place}-{name}" for place, (name, _) in enumerate(ARGUMENTS)])
def test_an_argument_of_another_type_or_size_is_named(name, call):
    with pytest.raises((TypeError, ValueError, DcrnnFastError), match=rf"^{re.escape(name)}(?!\w).*expected"):
        call()


LOGITS, KNOWN, P = torch.zeros(2, 1), torch.zeros(2, 2), torch.full((2, 1), 0.5)


def a_batch(spoil):
    ids, dense, _ = batch(num_dense=2)
    DCRNN(SIZES, embedding_dim=4, num_dense=2)(*spoil(ids, dense))


def one_value(name, value):
    """The batch with a value in its row 3, column 1."""

    def spoil(ids, dense):
        {"ids": ids, "dense": dense}[name][3, 1] = value
        return ids, dense

    return spoil


def a_checked_batch(changes, model=None):
    ids, dense, labels = batch(num_dense=2)
    whole = {"ids": ids, "dense": dense, "labels": labels}
    with checked(model or DCRNN(SIZES, embedding_dim=4, num_dense=2), **whole | changes):
        pytest.fail("the block began")


TABLE = [
    *rows("bad arguments are refused by name", lambda arguments, options: counterfactual_losses(*arguments, **options), None, cases=[
        ((LOGITS[0], KNOWN, P), {}, ValueError, r"z: got shape \[1\], expected \[B, T - 1\]"),
        ((LOGITS, KNOWN[:, :1], P), {}, ValueError, r"labels: got shape \[2, 1\].*expected \[B, T\]"),
        ((LOGITS[:, :0], KNOWN[:, :1], P[:, :0]), {}, ValueError, "at least one conditional"),
        ((LOGITS, KNOWN.int(), P), {}, TypeError, "labels: got dtype"),
        ((LOGITS, KNOWN + 2, P), {}, ValueError, r"labels: got a value outside \[0, 1\]"),
        ((LOGITS, KNOWN, P[0]), {}, ValueError, "propensity: got shape"),
        ((LOGITS, KNOWN, 3 * P), {}, ValueError, r"propensity: got a value outside \[0, 1\]"),
        ((LOGITS, KNOWN, math.nan * P), {}, ValueError, r"propensity: got a value outside \[0, 1\]"),
        ((LOGITS, KNOWN, P), {"sample_weight": torch.ones(3)}, ValueError, "sample_weight"),
        ((LOGITS, KNOWN, P), {"negative_rate": 0.0}, ValueError, "negative_rate=0"),
        ((LOGITS, KNOWN, P), {"propensity_floor": 2}, ValueError, "propensity_floor=2"),
        ((LOGITS, KNOWN, P), {"propensity_floor": "0.1"}, TypeError, "propensity_floor='0.1'"),
    ]),
    row("unnamed fields are named by number",
        lambda: DCRNN([4, 3], embedding_dim=4)(torch.tensor([[0, 3]])), IndexError, r"field '1' \(column 1\) has id 3"),
    *rows("a malformed batch", a_batch, None, cases=[
        (lambda ids, dense: (None, dense), TypeError, "ids: got NoneType"),
        (lambda ids, dense: (ids.tolist(), dense), TypeError, "ids: got list"),
        (lambda ids, dense: (ids.float(), dense), TypeError, "ids: got dtype torch.float32, expected torch.int64"),
        (lambda ids, dense: (ids > 0, dense), TypeError, "ids: got dtype torch.bool"),
        (lambda ids, dense: (ids[:, :2], dense), ValueError, r"ids: got shape \[9, 2\], expected \[B, 3\]"),
        (lambda ids, dense: (torch.cat([ids, ids], 1), dense), ValueError, r"ids: got shape \[9, 6\]"),
        (lambda ids, dense: (ids[0], dense), ValueError, r"ids: got shape \[3\]"),
        (lambda ids, dense: (ids, None), ValueError, "dense: got None"),
        (lambda ids, dense: (ids, dense.long()), TypeError, "dense: got dtype torch.int64"),
        (lambda ids, dense: (ids, dense[:, :1]), ValueError, r"dense: got shape \[9, 1\], expected \[9, 2\]"),
        (lambda ids, dense: (ids, dense[:4]), ValueError, r"dense: got shape \[4, 2\], expected \[9, 2\]"),
        *((one_value("ids", stray), IndexError, rf"field 'item' \(column 1\) has id {stray}, expected \[0, 11\)")
          for stray in (-1, 11, 2**40)),
        *((one_value("dense", value), ValueError, "dense: column 1 holds NaN or infinity") for value in (math.nan, math.inf, -math.inf)),
    ]),
    row("numbers for a model without", lambda: DCRNN(SIZES)(*batch(num_dense=2)[:2]),
        ValueError, "expected None; the model was built with num_dense=0"),
    *rows("malformed labels", lambda logits, labels: DCRNN(SIZES, embedding_dim=4).loss(logits, labels), None, cases=[
        (zeros(9, 2), None, TypeError, "labels: got NoneType, expected a tensor"),
        (zeros(9, 2), zeros(9, 2).long(), TypeError, "labels: got dtype torch.int64"),
        (zeros(9, 2), zeros(9, 1), ValueError, r"labels: got shape \[9, 1\], expected \[9, 2\]"),
        *((zeros(9, 2), zeros(9, 2) + stray, ValueError, r"labels: got a value outside \[0, 1\]")
          for stray in (1.5, -0.5, math.inf, -math.inf)),
        (zeros(9, 3), zeros(9, 3), ValueError, r"logits: got shape \[9, 3\], expected \[B, 2\]"),
        (zeros(0, 2), zeros(0, 2), ValueError, "labels: got an empty batch"),
    ]),
    *rows("malformed weights of tasks",
        lambda weight: DCRNN(SIZES, embedding_dim=4).loss(zeros(2, 2), zeros(2, 2), task_weight=weight), None, said="task_weight", cases=[
        ([1.0], ValueError), ([1.0, -1.0], ValueError), (torch.tensor([1.0, math.nan]), ValueError), ({"click": 1.0}, TypeError),
    ]),
    row("labels of another shape in a batch to check", lambda: a_checked_batch({"labels": zeros(9, 1)}),
        ValueError, r"labels: got shape \[9, 1\], expected \[9, 2\]"),
    row("another model to check a batch for", lambda: a_checked_batch({}, torch.nn.Embedding(2, 2)),
        TypeError, "model: got Embedding, expected a DCRNN"),
    *rows("a wrong scenario", lambda scenario: ScenarioCrossRNN(SCENARIOS)(torch.randn(2, 6), scenario), None, cases=[
        (torch.tensor([0, 4]), IndexError, r"scenario: got 4, expected values in \[0, 3\]"),
        (torch.tensor([-1, 2]), IndexError, r"scenario: got -1, expected values in \[0, 3\]"),
        (torch.tensor([1]), ValueError, r"scenario: got shape \[1\], expected \[2\]"),
        (torch.tensor([1.0, 2.0]), TypeError, r"scenario: got dtype torch\.float32"),
        ([1, 2], TypeError, "scenario: got list"),
    ]),
    *rows("a plan that scenarios cannot have", lambda change: replace(SCENARIOS, **change), ValueError, cases=[
        ({"kind": "rows"}, 'sharing="rows": expected sharing="trunk" with scenarios'),
        ({"num_scenarios": -1}, "num_scenarios=-1"),
        ({"scenario_units": (2, 3)}, "scenario_units: unit 2 is in shared_units too"),
        ({"scenario_units": (6,)}, r"scenario_units=\(6,\): expected sorted, distinct unit numbers in \[0, 6\)"),
    ]),
    *rows("a models scenario that cannot be", lambda model, change: model(SIZES, **{"sharing": "trunk", **change}), ValueError, cases=[
        (model, change, said) for model in (DCRNN, reference.DCRNN) for change, said in (
            ({"scenario": "channel"}, "scenario='channel': expected one of 'user', 'item', 'hour'"),
            ({"scenario": "item", "sharing": "rows"}, "scenario='item' with sharing='rows': expected sharing=\"trunk\""),
            ({"scenario": "item", "share_ratio": 0.8}, r"share_ratio=0\.8 with scenario='item': expected at most 0\.75"),
        )
    ]),
    row("a consume without a click is refused under the chain with its row",
        lambda: DCRNN(SIZES, embedding_dim=4, num_dense=2).loss(zeros(3, 2), torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])),
        ValueError, r"row 1 has consume=1 with click=0, and 2 rows in all.*strict_funnel=False"),
    row("an unknown label between two known ones hides no broken funnel",
        lambda: DCRNN(SIZES, embedding_dim=4, tasks=("see", "click", "consume"))
            .loss(zeros(1, 3), torch.tensor([[0.0, math.nan, 1.0]])),
        ValueError, "row 0 has consume=1 with see=0"),
    row("an input of another width",
        lambda: CrossRNN(SharingPlan.from_ratio("rows", 2, 8, 0.5))(torch.randn(5, 7)),
        ValueError, r"x0: got shape \[5, 7\], expected \[B, 8\]"),
    *rows("edges that bound no bins are refused by number",
        lambda edges: PiecewiseLinearEmbedding(2, 3, bins=2).set_edges(edges), ValueError, cases=[
        ([torch.tensor([0.0, 1.0])], "got 1 tensors, expected one for each of the 2 dense features"),
        ([torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])], r"edges\[1\]: got \[1.0, 1.0\], expected 2 to 3 finite, rising numbers"),
        ([torch.tensor([0.0, float("inf")]), torch.tensor([0.0, 1.0])], r"edges\[0\]: got \[0.0, inf\]"),
        ([torch.arange(4.0), torch.tensor([0.0, 1.0])], r"edges\[0\]: got \[0.0, 1.0, 2.0, 3.0\]"),
        ([torch.tensor([0.0]), torch.tensor([0.0, 1.0])], r"edges\[0\]: got \[0.0\]"),
    ]),
    *rows("a bad argument", lambda params, options: RowWiseAdagrad(params, **options), None, cases=[
        ([torch.zeros(3, 2)], {"lr": -1.0}, ValueError, "lr=-1.0: expected a finite number of at least 0"),
        ([torch.zeros(3, 2)], {"weight_decay": "1"}, TypeError, "weight_decay='1'"),
        ([torch.zeros(3, 2)], {"prior": -1.0}, ValueError, "prior=-1.0: expected a finite number of at least 0"),
        ([torch.zeros(3)], {}, ValueError, r"params: got torch.float32 \[3\], expected tables \[rows, width\]"),
        ([torch.zeros(3, 2, dtype=torch.bfloat16)], {}, ValueError, "params: got torch.bfloat16"),
    ]),
    row("sparse must be true or false", lambda: DCRNN([3], sparse="yes"), TypeError, "sparse='yes': expected True or False"),
    row("scenarios are no field of several values",
        lambda: DCRNN(test_pooling.SIZES, **test_pooling.OPTIONS, scenario="tags[0]", sharing="trunk"),
        ValueError, r"scenario='tags\[0\]': expected one of 'user', 'item'"),
    *rows("what names no columns of one embedding",
        lambda pooled: DCRNN(test_pooling.SIZES, shared_embeddings=test_pooling.SHARED, pooled=pooled), None,
            within=r"pooled.*{}", cases=[
        ([("tags", [])], TypeError, "expected a mapping from field names to their columns and pooling, got list"),
        ({"tags": ["tags[0]"]}, ValueError, r"\['tags'\] is \['tags\[0\]'\], expected a mapping with columns and pooling"),
        (pool_of([]), ValueError, r"\['tags'\]: its columns are \[\], expected a list of columns of ids"),
        (pool_of(["tags[0]", "shop"]), ValueError, "expected a list of columns of ids"),
        (pool_of("tags[0]"), ValueError, r"\['tags'\]: its columns are 'tags\[0\]', expected a list"),
        (pool_of([["tags[0]"]]), ValueError, "expected a list of columns of ids"),
        (pool_of(["tags[0]", "tags[1]"], "max"), ValueError, "its pooling is 'max', expected one of 'mean', 'sum'"),
        (pool_of(["tags[0]", "tags[2]"]), ValueError, r"its columns 'tags\[0\]', 'tags\[2\]' do not follow each other"),
        (pool_of(["tags[1]", "tags[0]"]), ValueError, "do not follow each other"),
        (pool_of(["tags[0]", "tags[0]"]), ValueError, "do not follow each other"),
        (pool_of(["user", "tags[0]"]), ValueError, "have embeddings of their own, expected one that they share"),
        (pool_of(["tags[0]", "tags[1]"]) | {"more": pool_of(["tags[1]"])["tags"]}, ValueError, r"\['more'\]: .* belong to another field"),
        ({"user": pool_of(["tags[0]"])["tags"]}, ValueError, "names the field 'user', expected a name that no column of ids has"),
        ({1: pool_of(["tags[0]"])["tags"]}, ValueError, "names the field 1"),
    ]),
    row("ratios that ask for more than all units",
        lambda: SharingPlan.from_ratio("trunk", 2, 8, 0.5, num_scenarios=2, scenario_ratio=0.6),
        ValueError, r"scenario_ratio=0\.6: expected at most 1 - share_ratio = 0\.5"),
    row("a field that a plan does not have", lambda: SharingPlan.from_fields("rows", 2, [2, 2], [3]), IndexError, "field 3"),
    row("a variable that is neither 1 nor 0",
        lambda monkeypatch: (monkeypatch.setenv("DCRNN_FAST_CUDA_GRAPHS", "no"), recorder_for(DCRNN([2]))),
        ValueError, "DCRNN_FAST_CUDA_GRAPHS='no': expected 1 or 0"),
    row("the recurrence without scenarios refuses a plan with them", lambda: CrossRNN(SCENARIOS),
        ValueError, "plan: got one with scenarios"),
    row("an id beyond a shared field is refused with that fields name",
        lambda: DCRNN(test_pooling.SHARING_SIZES, shared_embeddings=test_pooling.LAST_ITEM)(torch.tensor([[5, 0, 0]])),
        IndexError, r"field 'last_item' \(column 0\) has id 5, expected \[0, 5\)"),
    *rows("what names no other field of the same size",
        lambda shared: DCRNN(test_pooling.SHARING_SIZES, shared_embeddings=shared), None, within=r"shared_embeddings.*{}", cases=[
        ({"last": "item"}, ValueError, "a field='last': expected one of 'last_item', 'user', 'item'"),
        ({"last_item": "shop"}, ValueError, r"\['last_item'\]='shop': expected one of 'user', 'item'"),
        ({"last_item": "last_item"}, ValueError, r"\['last_item'\]='last_item': expected one of 'user', 'item'"),
        ({"last_item": "item", "item": "user"}, ValueError, r"\['last_item'\]='item': expected one of 'user'"),
        ({"last_item": "user"}, ValueError, r"\['last_item'\]='user': the fields have 5 and 3 ids, expected as many"),
        ({"last_item": ["item"]}, ValueError, r"\['last_item'\]=\['item'\]: expected one of 'user', 'item'"),
        ([("last_item", "item")], TypeError, "expected a mapping from field names to field names, got list"),
        ("item", TypeError, "expected a mapping from field names to field names, got str"),
    ]),
    *rows("an embedding refuses a row that it does not have",
        lambda stray: Embedding(5, 2)(torch.tensor([0, stray])), (IndexError, RuntimeError), said="out of range", values=[
        5, -1,
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
