"""A whole model under the transforms of torch.func: what the reference gives by a loop or by ``backward()``, or a refusal that names the
way that works. Never zero, never from a value that nobody checked."""

import pytest
import torch
from torch.func import functional_call, functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vjp, vmap

from dcrnn_fast import DCRNN, BackendUnavailable, Ranker, ScenarioCrossRNN, SharingPlan, reference
from dcrnn_fast.data import Encoder
from dcrnn_fast.ops import backends
from tests.nn.models import PLAIN, SIZES, batch

OPTIONS = PLAIN | {"embedding_dim": 3, "num_dense": 2, "tower_dims": (4, 3), "dtype": torch.float64}
PARTS = {
    "rows, chain": {},
    "trunk, independent": {"sharing": "trunk", "relation": "independent"},
    "transfer": {"relation": "transfer"},
    "all shared": {"share_ratio": 1.0},
    "low rank": {"rank": 2},
    "low rank trunk, untied": {"rank": 2, "sharing": "trunk", "tied": False},
    "scenario": {"sharing": "trunk", "scenario": "hour"},
    "bins": {"dense_bins": 3},
    "pooled": {"shared_embeddings": {"second": "user"}, "pooled": {"users": {"columns": ["user", "second"], "pooling": "mean"}}},
    "sparse": {"sparse": True},
}
KERNEL_MISSING = backends.REASONS["cpp"] is not None
on_cpp = pytest.mark.skipif(KERNEL_MISSING, reason="the backend cpp cannot run here")
of_backends = pytest.mark.parametrize("backend", ["reference", "auto", pytest.param("cpp", marks=on_cpp)])
of_parts = pytest.mark.parametrize("part", PARTS)


class Problem:
    """A model with a part, the reference with the same weights, and rows: one label is unknown, weights differ."""

    def __init__(self, part: str, backend: str = "auto", rows: int = 3):
        options = {**OPTIONS, **PARTS[part]}
        sizes = {"user": 7, "second": 7, "item": 11} if part == "pooled" else SIZES
        self.fast, self.plain = DCRNN(sizes, backend=backend, **options), reference.DCRNN(sizes, **options)
        with torch.no_grad():
            for parameter in self.fast.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        self.plain.load_state_dict(self.fast.state_dict())
        _, self.dense, self.labels = batch(rows, num_dense=2, dtype=torch.float64)
        self.ids = torch.stack([torch.arange(rows) % size for size in sizes.values()], dim=1)
        self.labels[1, 1] = torch.nan
        self.weight = torch.rand(rows, dtype=torch.float64) + 0.1
        self.state = {name: value.detach().clone() for name, value in self.fast.named_parameters() if value.numel()}

    @property
    def rows(self):
        return self.ids, self.dense, self.labels, self.weight

    def loss(self, state, ids, dense, labels, weight, *, model=None):
        model = model or self.fast
        return model.loss(functional_call(model, state, (ids, dense)), labels, sample_weight=weight)

    def gradient(self, state, *rows):
        """By ``backward()`` of the reference."""
        state = {name: value.detach().clone().requires_grad_() for name, value in state.items()}
        self.loss(state, *rows, model=self.plain).backward()
        return {name: torch.zeros_like(v) if v.grad is None else v.grad.to_dense() for name, v in state.items()}

    def slope(self, direction, size=1e-6):
        """The directional derivative of the reference's loss, by differences."""
        ahead, behind = (
            self.loss({name: value + sign * size * direction[name] for name, value in self.state.items()}, *self.rows, model=self.plain)
            for sign in (1, -1)
        )
        return (ahead - behind) / (2 * size)

    def direction(self):
        return {name: torch.randn_like(value) for name, value in self.state.items()}


def gradients_of_samples(problem):
    """By vmap over grad: a gradient a row."""
    one = grad(lambda state, *row: problem.loss(state, *[value[None] for value in row]))
    return vmap(one, in_dims=(None, 0, 0, 0, 0))(problem.state, *problem.rows)


def check_gradients_of_samples(problem):
    found = gradients_of_samples(problem)
    for i in range(len(problem.ids)):
        expected = problem.gradient(problem.state, *[value[i : i + 1] for value in problem.rows])
        for name, value in expected.items():
            torch.testing.assert_close(found[name][i], value, msg=lambda text, at=(i, name): f"row {at[0]}, {at[1]}: {text}")


@of_backends
@of_parts
def test_a_models_gradients_of_each_sample_are_those_of_the_sample_alone(part, backend):
    check_gradients_of_samples(Problem(part, backend))


def test_the_check_of_each_samples_gradient_finds_a_dropped_one(monkeypatch):
    problem = Problem("rows, chain")
    cross = problem.fast.cross.cross_rnn
    monkeypatch.setattr(problem.fast.cross, "cross_rnn", lambda x0, *tensors, **options: cross(x0.detach(), *tensors, **options))
    with pytest.raises(AssertionError, match=r"embedding\.weight"):
        check_gradients_of_samples(problem)


@of_backends
@of_parts
def test_an_ensembles_logits_and_gradients_are_those_of_each_model(part, backend):
    problem, other = Problem(part, backend), Problem(part, backend)
    states, buffers = stack_module_state([problem.fast, other.fast])
    found = vmap(lambda *state: functional_call(problem.fast, state, (problem.ids, problem.dense)))(states, buffers)
    torch.testing.assert_close(found, torch.stack([model(problem.ids, problem.dense) for model in (problem.plain, other.plain)]))
    stacked = {name: torch.stack([problem.state[name], other.state[name]]) for name in problem.state}
    gradients = vmap(grad(problem.loss), in_dims=(0, *[None] * 4))(stacked, *problem.rows)
    for i, state in enumerate((problem.state, other.state)):
        for name, expected in problem.gradient(state, *problem.rows).items():
            torch.testing.assert_close(gradients[name][i], expected, msg=lambda text, at=(i, name): f"model {at[0]}, {at[1]}: {text}")


@of_backends
def test_vjp_and_jacrev_are_backward(backend):
    problem = Problem("rows, chain", backend)
    expected = problem.gradient(problem.state, *problem.rows)
    value, pull = vjp(lambda state: problem.loss(state, *problem.rows), problem.state)
    torch.testing.assert_close(value, problem.loss(problem.state, *problem.rows, model=problem.plain))
    torch.testing.assert_close(pull(torch.ones_like(value))[0], expected)
    torch.testing.assert_close(jacrev(problem.loss)(problem.state, *problem.rows), expected)


@of_parts
def test_the_directional_derivative_of_a_model_is_its_slope(part):
    problem = Problem(part)
    direction = problem.direction()
    expected = problem.slope(direction)
    assert expected.abs() > 1e-4
    found = jvp(lambda state: problem.loss(state, *problem.rows), (problem.state,), (direction,))[1]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sharing", ["rows", "scenario"])
def test_a_linearized_model_gives_its_directional_derivatives(sharing):
    """PyTorch traces it: checks and scenarios may not read the values."""
    options = {} if sharing == "rows" else {"sharing": "trunk", "scenario": "hour"}
    model = DCRNN({"hour": 3}, **PLAIN, embedding_dim=2, num_dense=1, tower_dims=(), steps=1, dtype=torch.float64, **options)
    torch.nn.init.normal_(model.cross.scenario_weight if options else model.cross.shared_weight)
    ids, dense = torch.tensor([[2], [1], [0]]), torch.randn(3, 1, dtype=torch.float64)
    value, along = linearize(lambda dense: model(ids, dense), dense)
    direction = torch.randn_like(dense)
    torch.testing.assert_close((value, along(direction)), jvp(lambda dense: model(ids, dense), (dense,), (direction,)))


def test_forward_and_second_derivatives_are_those_of_the_reference():
    problem = Problem("transfer", rows=2)

    def loss_of(model):
        return lambda bias: problem.loss({**problem.state, "cross.shared_bias": bias}, *problem.rows, model=model)

    bias = problem.state["cross.shared_bias"]
    expected = torch.autograd.functional.hessian(loss_of(problem.plain), bias)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(hessian(loss_of(problem.fast))(bias), expected)
    torch.testing.assert_close(jacrev(jacrev(loss_of(problem.fast)))(bias), expected)
    gradient = problem.gradient(problem.state, *problem.rows)["cross.shared_bias"]
    torch.testing.assert_close(jacfwd(loss_of(problem.fast))(bias), gradient)


REFUSED = {
    "jvp": lambda loss, state: jvp(loss, (state,), (state,)),
    "jvp of grad": lambda loss, state: jvp(grad(loss), (state,), (state,)),
    "linearize": linearize,
    "jacfwd": lambda loss, state: jacfwd(loss)(state),
    "hessian": lambda loss, state: hessian(loss)(state),
    "jacrev of jacrev": lambda loss, state: jacrev(jacrev(loss))(state),
    "functionalize": lambda loss, state: functionalize(grad(loss))(state),
}


@on_cpp
@pytest.mark.parametrize("transform", REFUSED)
def test_a_model_on_a_kernel_refuses_what_kernels_cannot_differentiate(transform):
    problem = Problem("rows, chain", "cpp")
    with pytest.raises(BackendUnavailable, match="backend='reference'"):
        REFUSED[transform](lambda state: problem.loss(state, *problem.rows), problem.state)


@of_backends
def test_a_value_out_of_range_in_one_sample_is_refused_by_name(backend):
    """``vmap`` holds all samples in one tensor, and checks read that."""
    problem = Problem("rows, chain", backend)
    logits, ones = problem.plain(problem.ids, problem.dense).detach(), torch.ones(3, 2)

    def row(name, value, at):
        changed = getattr(problem, name).clone()
        changed[at] = value
        return changed

    def of_model(ids, dense):
        return lambda: vmap(lambda ids, dense: problem.fast(ids[None], dense[None]))(ids, dense)

    def of_loss(labels, weight=problem.weight, task_weight=ones):
        def loss(z, labels, weight, task_weight):
            return problem.fast.loss(z[None], labels[None], sample_weight=weight[None], task_weight=task_weight)

        return lambda: vmap(loss)(logits, labels, weight, task_weight)

    of_model(problem.ids, problem.dense)(), of_loss(problem.labels)()
    for call, error, message in (
        (of_model(row("ids", 11, (2, 1)), problem.dense), IndexError, r"ids: field 'item' \(column 1\) has id 11, expected \[0, 11\)"),
        (of_model(row("ids", -1, (0, 0)), problem.dense), IndexError, r"ids: field 'user' \(column 0\) has id -1"),
        (of_model(problem.ids, row("dense", torch.nan, (1, 1))), ValueError, "dense: column 1 holds NaN"),
        (of_loss(row("labels", 2.0, (0, 0))), ValueError, r"labels: got a value outside \[0, 1\]"),
        (of_loss(row("labels", torch.tensor([0.0, 1.0]), 2)), ValueError, "labels: row 2 has consume=1 with click=0"),
        (of_loss(problem.labels, row("weight", -1.0, 1)), ValueError, "sample_weight: got a negative"),
        (of_loss(problem.labels, task_weight=-ones), ValueError, "task_weight: got"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_scenario_out_of_range_in_one_sample_is_refused():
    layer = ScenarioCrossRNN(SharingPlan.from_ratio("trunk", num_tasks=2, dim=4, share_ratio=0.5, num_scenarios=3, scenario_ratio=0.25))
    x0 = torch.randn(2, 1, 4)
    for stray in (-1, 4):
        with pytest.raises(IndexError, match=rf"scenario: got {stray}, expected values in \[0, 3\]"):
            vmap(layer)(x0, torch.tensor([[1], [stray]]))


def test_a_prepared_model_and_a_ranker_say_that_they_have_no_derivatives():
    model = DCRNN({"item": 3})
    prepared, ids = model.prepare_inference(), torch.tensor([[1], [2]])
    encoder = Encoder(
        tasks=["click", "consume"], num_embeddings={"item": 3}, dense=[], vocabulary={"item": ["<oov>", "i1", "i2"]}, scaling={}
    )
    ranker = Ranker(model, encoder)
    calls = (
        lambda x: prepared(ids).sum() + x,
        lambda x: prepared.predict(ids)["click"].sum() + x,
        lambda x: float(ranker.predict({"item": ["i1"]})["click"][0]) + x,
    )
    for call in calls:
        for transform in (grad, jacfwd, lambda f: lambda x: vmap(f)(x[None])):
            with pytest.raises(NotImplementedError, match="call the model itself"):
                transform(call)(torch.tensor(1.0))
