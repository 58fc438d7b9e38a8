"""The fast model against the reference, which shares no code with it; and that this comparison alone finds defects in the fast one."""

import pytest
import torch

import dcrnn_fast
from dcrnn_fast import DCRNN, CrossRNN, DCNv2, ScenarioCrossRNN, SharingPlan, reference
from dcrnn_fast.nn import features, model, relations
from dcrnn_fast.nn.cpu_layers import Dropout
from dcrnn_fast.nn.features import FirstOrder, PiecewiseLinearEmbedding
from dcrnn_fast.nn.layers import TaskLinear
from dcrnn_fast.nn.relations import EventLogits, InformationTransfer
from dcrnn_fast.nn.towers import Towers
from tests.nn.comparison import CONFIGURATIONS, compare, compare_dropout, same


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_fast_model_and_the_reference_agree(configuration):
    compare(configuration)


def test_both_drop_out_alike():
    compare_dropout()


def test_the_reference_has_no_fast_class_among_its_bases():
    fast = DCRNN, CrossRNN, ScenarioCrossRNN, DCNv2, PiecewiseLinearEmbedding
    for one in fast:
        plain = getattr(reference, one.__name__)
        assert plain not in one.__mro__
        assert one not in plain.__mro__


PLAN = SharingPlan.from_ratio("trunk", 2, 5, 0.4, rank=4)
LAYERS = {f"DCN-v2, rank {rank}": ("DCNv2", (5, 3), {"rank": rank}) for rank in (None, 1, 3)} | {
    "a trunk of low rank": ("CrossRNN", (PLAN,), {}),
    **{f"{kind}, by field": ("CrossRNN", (SharingPlan.from_fields(kind, 2, [2, 1, 2], [1]),), {}) for kind in ("rows", "trunk")},
}


@pytest.mark.parametrize(("name", "arguments", "options"), LAYERS.values(), ids=LAYERS)
def test_a_layer_and_its_reference_agree_in_weights_outputs_and_gradients(name, arguments, options):
    made = []
    for module in (dcrnn_fast, reference):
        torch.manual_seed(0)
        made.append(getattr(module, name)(*arguments, **options, dtype=torch.float64))
    fast, plain = made
    same(fast.state_dict(), plain.state_dict())
    with torch.no_grad():
        fast.shared_bias.uniform_(-1, 1)
    plain.load_state_dict(fast.state_dict(), strict=True)
    found, x0 = [], torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    for one in made:
        out = one(x0)
        held = {name: value for name, value in one.named_parameters() if value.numel()}
        gradients = torch.autograd.grad(out.square().sum(), [x0, *held.values()])
        found.append({"out": out, **dict(zip(["x0", *held], gradients, strict=True))})
    same(*found)


def test_edges_of_bins_are_taken_alike():
    fast, plain = PiecewiseLinearEmbedding(2, 3, 4), reference.PiecewiseLinearEmbedding(2, 3, 4)
    for layer in (fast, plain):
        layer.set_edges([torch.tensor([0.0, 1.0, 5.0]), torch.tensor([-3.0, -1.0, 0.0, 2.0, 2.5])])
    for name in ("lower", "scale"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), msg=name)


def after(patch, owner, name, change):
    """Plant a change of what a function returns; it takes the function's arguments too."""
    right = getattr(owner, name)
    patch(owner, name, lambda *args, **options: change(right(*args, **options), *args))


def before(patch, owner, name, change):
    """Plant a change of a function's arguments, by position."""
    right = getattr(owner, name)
    patch(owner, name, lambda *args, **options: right(*change(*args), **options))


def recurrence(patch, change):
    """Plant a change of the arguments of the recurrence's operator, by name."""
    right, names = CrossRNN.cross_rnn, ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias")

    def wrong(self, *tensors, **options):
        given = {**dict(zip(names, tensors, strict=True)), **options}
        given = {**given, **change(given)}
        return right(self, *[given.pop(name) for name in names], **given)

    patch(CrossRNN, "cross_rnn", wrong)


def of_the_first_step(given):
    """Untied weights of which every step reads those of the first."""
    names = [name for name in given if name.startswith(("shared", "private"))]
    return {name: given[name].narrow(int("private" in name), 0, 1).expand_as(given[name]) for name in names}


def gate_by_the_first_projection(given):
    """The projections of W for V too."""
    banks = "shared_projection", "private_projection"
    return {name: given[name][..., :1, :].expand_as(given[name]) for name in banks if name in given}


def mean_of_all_columns(embedded, ids, pooling):
    """The embeddings of a span, in which columns without a value count too."""
    total = (embedded * (ids != 0).unsqueeze(-1)).sum(1)
    return embedded.flatten(1) if pooling is None else total if pooling == "sum" else total / ids.shape[1]


def without_scale(self, states):
    """AITM's attention without the root of the width."""
    after = [states[0]]
    for task in range(1, len(states)):
        u = torch.stack([torch.relu(self.info[task - 1](after[-1])), states[task]])
        score = (self.query[task - 1](u) * self.key[task - 1](u)).sum(-1, keepdim=True)
        after.append((torch.softmax(score, dim=0) * self.value[task - 1](u)).sum(0))
    return torch.stack(after)


def without_relu(self, states, first_order=None):
    """Linear towers."""
    for layer in self.layers:
        states = self.dropout(layer(states))
    z = self.head(states if self.transfer is None else self.transfer(states)).squeeze(-1).T
    return z if first_order is None else z + first_order


def extrapolating(self, x):
    """Numbers beyond the outer edges go on."""
    return ((x.T.unsqueeze(2) - self.lower.unsqueeze(1)) * self.scale.unsqueeze(1)).to(self.weight.dtype)


DEFECTS = {
    "the heads of tasks are swapped": lambda patch: after(patch, Towers, "forward", lambda z, *_: z.flip(1)),
    "names of probabilities are swapped": lambda patch: after(
        patch, EventLogits, "probabilities", lambda p, *_: dict(zip(p, reversed(p.values()), strict=True))
    ),
    "no dropout": lambda patch: patch(Dropout, "forward", lambda self, x: x),
    "dropout does not make up for what it drops": lambda patch: after(
        patch, Dropout, "forward", lambda out, self, x: out * (1 - self.p) if self.training else out
    ),
    "a tower's rows are off by one": lambda patch: after(patch, TaskLinear, "forward", lambda out, *_: out.roll(1, 2)),
    "towers are linear": lambda patch: patch(Towers, "forward", without_relu),
    "tasks own each other's rows": lambda patch: recurrence(patch, lambda given: {"private_weight": given["private_weight"].flip(0)}),
    "the first row that tasks share serves all units": lambda patch: recurrence(
        patch, lambda given: {name: given[name][:, :1].expand_as(given[name]) for name in ("shared_weight", "shared_bias")}
    ),
    "the recurrence has no bias": lambda patch: recurrence(
        patch, lambda given: {name: torch.zeros_like(given[name]) for name in ("shared_bias", "private_bias")}
    ),
    "untied steps read the weights of the first": lambda patch: recurrence(patch, of_the_first_step),
    "the gate reads the projection of W": lambda patch: recurrence(patch, gate_by_the_first_projection),
    "x0 has no gradient": lambda patch: recurrence(patch, lambda given: {"x0": given["x0"].detach()}),
    "the first state for the last": lambda patch: after(
        patch, CrossRNN, "cross_rnn", lambda h, _, x0, *tensors: x0.expand_as(h) if h.dim() == 3 else h
    ),
    "the trunk's states in reverse": lambda patch: after(patch, CrossRNN, "_trunk_states", lambda h, *_: None if h is None else h.flip(0)),
    "scenarios are off by one": lambda patch: before(
        patch, ScenarioCrossRNN, "forward", lambda self, x0, scenario: (self, x0, (scenario - 1).clamp(min=0))
    ),
    "an unknown scenario is the first": lambda patch: before(
        patch, ScenarioCrossRNN, "forward", lambda self, x0, scenario: (self, x0, scenario.clamp(min=1))
    ),
    "the mean divides by all columns": lambda patch: patch(features, "pool_span", mean_of_all_columns),
    "id 0 is a value": lambda patch: before(patch, features, "pool_span", lambda embedded, ids, kind: (embedded, ids + 1, kind)),
    "a shared field reads the first rows": lambda patch: after(
        patch,
        features,
        "table_rows",
        lambda found, names, _, shared: (found[0], [0 if n in shared else o for n, o in zip(names, found[1], strict=True)]),
    ),
    "numbers have no outer edges": lambda patch: patch(PiecewiseLinearEmbedding, "bins", extrapolating),
    "the transfer has no scale": lambda patch: patch(InformationTransfer, "forward", without_scale),
    "the chain is cut": lambda patch: patch(relations, "chain_logits", lambda z: z),
    "the rate of negatives is forgotten": lambda patch: patch(relations, "unsampled_logits", lambda z, rate: z),
    "the rate of negatives is turned over": lambda patch: before(patch, relations, "unsampled_logits", lambda z, rate: (z, 1 / rate)),
    "an unknown label is a negative": lambda patch: before(
        patch, model, "task_losses", lambda logits, labels, weight: (logits, labels.nan_to_num(), weight)
    ),
    "weights of rows are ignored": lambda patch: before(patch, model, "task_losses", lambda logits, labels, weight: (logits, labels)),
    "weights of tasks are ignored": lambda patch: before(patch, model, "combine", lambda losses, weight: (losses, None)),
    "the calibrator weighs 1": lambda patch: patch(model, "CALIBRATOR_WEIGHT", 1.0),
    "the first-order term is lost": lambda patch: before(patch, Towers, "forward", lambda self, states, term: (self, states)),
    "the first-order terms of tasks are swapped": lambda patch: before(
        patch, Towers, "forward", lambda self, states, term: (self, states, None if term is None else term.flip(1))
    ),
    "the first-order term reads no numbers": lambda patch: after(patch, FirstOrder, "of_numbers", lambda sums, *_: 0 * sums),
    "the first-order term counts what is no value": lambda patch: after(
        patch, FirstOrder, "of_ids", lambda sums, self, rows, ids, cut: self.table(rows).sum(1)
    ),
    "the first-order term starts at random": lambda patch: patch(
        FirstOrder, "reset_parameters", lambda self: torch.nn.init.normal_(self.table.weight)
    ),
    "embeddings start with another deviation": lambda patch: after(
        patch, features.Features, "reset_parameters", lambda _, self: torch.nn.init.normal_(self.embedding.weight, std=0.05)
    ),
}


@pytest.mark.parametrize("plant", DEFECTS.values(), ids=DEFECTS)
def test_the_comparison_alone_finds_a_planted_defect(plant, monkeypatch):
    plant(monkeypatch.setattr)
    with pytest.raises(AssertionError):  # noqa: PT012 (one of the comparisons raises)
        compare_dropout()
        for configuration in CONFIGURATIONS.values():
            compare(configuration)
