"""Every public function names the argument that it cannot use; the operators' own tests are in tests/operators/."""

import re

import numpy as np
import pytest
import torch

from dcrnn_fast import DCRNN, CrossRNN, DCNv2, DcrnnFastError, PartiallySharedLinear, SharingPlan, UncertaintyWeighting, reference
from dcrnn_fast.data import BlockLoader, PackedSplit, open_packed, prepare
from dcrnn_fast.nn.losses import combine, expectation_calibrator, task_losses
from dcrnn_fast.nn.relations import InformationTransfer, chain_logits
from dcrnn_fast.ops import backends
from dcrnn_fast.training import evaluate, load_config, load_model, train
from dcrnn_fast.training.evaluate.metrics import binary_metrics, group_auc, task_metrics

Z, LABELS = torch.zeros(3, 2), torch.ones(3, 2)
NO_FLOATS = [None, "x", [1.0], Z.long(), Z.to(torch.complex64), Z[0, 0]]
PLAN = SharingPlan.from_ratio("rows", 2, 4, 0.5)
SPLIT = PackedSplit("train", np.zeros((2, 1), np.int32), None, np.zeros((2, 1), np.float32), None, None)
VECTOR = np.array([1.0, 0.0, 1.0])
NO_VECTORS = [None, [1, 0, 1], VECTOR[:, None], VECTOR.astype(str), VECTOR * np.nan]

TENSORS = {
    "logits": [
        lambda bad: task_losses(bad, LABELS),
        expectation_calibrator,
        lambda bad: DCRNN([2]).loss(bad, LABELS),
    ],
    "labels": [lambda bad: task_losses(Z, bad), lambda bad: DCRNN([2]).loss(Z, bad)],
    "losses": [lambda bad: combine(bad, None), UncertaintyWeighting(2)],
    "z": [chain_logits],
    "x0": [CrossRNN(PLAN), reference.CrossRNN(PLAN), DCNv2(4, 2)],
    "x": [PartiallySharedLinear(4, 2, 2)],
    "states": [InformationTransfer(2, 4)],
}


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in TENSORS.items() for call in calls])
def test_a_tensor_of_another_type_or_shape_is_named(name, call):
    for bad in [*NO_FLOATS, torch.zeros(3, 5, 7, 2)]:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: got .*, expected "):
            call(bad)


@pytest.mark.parametrize("weigh", [lambda w: task_losses(Z, LABELS, w), lambda w: expectation_calibrator(Z, w)])
@pytest.mark.parametrize("weight", ["x", [1.0], Z, Z[:, 0].to(torch.complex64), Z[:, 0] - 1])
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
    ("dtype", lambda: PartiallySharedLinear(4, 2, 2, dtype=torch.int8)),
    ("out_features", lambda: PartiallySharedLinear(4, 2**40, 2)),
    ("device", lambda: UncertaintyWeighting(2, device="x")),
    ("num_tasks", lambda: InformationTransfer(0, 4)),
    ("width", lambda: InformationTransfer(2, "4")),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, None)),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, ("a",))),
    ("shared_units", lambda: SharingPlan("rows", 2, 4, (1.5,))),
    ("field_dims", lambda: SharingPlan.from_fields("rows", 2, 4, [0])),
    ("field_dims", lambda: SharingPlan.from_fields("rows", 2, [-4, 8], [0])),
    ("shared_fields", lambda: SharingPlan.from_fields("rows", 2, [4, 4], [0.5])),
    ("dim", lambda: SharingPlan.from_ratio("rows", 2, 2**62, 0.5)),
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
    ("predictions", lambda: task_metrics({}, VECTOR[:, None], ["a"], funnel=False)),
    ("labels", lambda: task_metrics({"a": VECTOR}, VECTOR, ["a"], funnel=False)),
    ("tasks", lambda: task_metrics({"a": VECTOR}, VECTOR[:, None], 3, funnel=False)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call"), ARGUMENTS, ids=[f"{place}-{name}" for place, (name, _) in enumerate(ARGUMENTS)])
def test_an_argument_of_another_type_or_size_is_named_with_what_was_expected(name, call):
    with pytest.raises((TypeError, ValueError, DcrnnFastError), match=rf"^{re.escape(name)}(?!\w).*expected"):
        call()


@pytest.mark.parametrize("bad", NO_VECTORS, ids=range(len(NO_VECTORS)))
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("probabilities", lambda bad: binary_metrics(VECTOR, bad)),
        ("labels", lambda bad: group_auc(bad, VECTOR, VECTOR)),
        ("scores", lambda bad: group_auc(VECTOR, bad, VECTOR)),
    ],
)
def test_an_array_of_another_type_or_shape_is_named(name, call, bad):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: (got|expected) "):
        call(bad)
