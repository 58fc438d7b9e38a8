"""Losses over known labels, weights of tasks, and the relations between tasks, against their formulas in float64."""

import math

import pytest
import torch

from dcrnn_fast import UncertaintyWeighting
from dcrnn_fast.nn.losses import expectation_calibrator, task_losses
from dcrnn_fast.nn.relations import chain_logits
from tests.operators.problems import DOUBLE

NAN = float("nan")


def entropy(logit, label):
    """-(label * log(p) + (1 - label) * log(1 - p)) with p the sigmoid of the logit."""
    return math.log1p(math.exp(logit)) - label * logit


def test_a_tasks_loss_is_the_mean_cross_entropy_over_its_known_labels():
    logits = torch.tensor([[0.3, -1.0], [-2.0, 0.5], [1.0, 2.0]], dtype=DOUBLE)
    labels = torch.tensor([[1.0, 0.0], [0.0, NAN], [0.25, 1.0]], dtype=DOUBLE)
    expected = [(entropy(0.3, 1) + entropy(-2.0, 0) + entropy(1.0, 0.25)) / 3, (entropy(-1.0, 0) + entropy(2.0, 1)) / 2]
    torch.testing.assert_close(task_losses(logits, labels), torch.tensor(expected, dtype=DOUBLE))


def test_sample_weights_weigh_the_mean():
    logits, labels = torch.randn(5, 2, dtype=DOUBLE), torch.randint(0, 2, (5, 2)).double()
    weight = torch.tensor([2.0, 0.0, 1.0, 0.0, 0.0], dtype=DOUBLE)
    repeated = [0, 0, 2]
    torch.testing.assert_close(task_losses(logits, labels, weight), task_losses(logits[repeated], labels[repeated]))


def test_an_unknown_label_gives_no_gradient_and_hides_no_nan():
    logits = torch.randn(3, 3, requires_grad=True)
    losses = task_losses(logits, torch.tensor([[NAN, 1.0, NAN], [1.0, NAN, NAN], [NAN, NAN, NAN]]))
    losses.sum().backward()
    assert (logits.grad != 0).tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert torch.isfinite(logits.grad).all()
    assert losses[2] == 0, "a task without a known label"


def test_uncertainty_weighting_is_kendalls_formula_and_learns():
    weighting = UncertaintyWeighting(2)
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([0.5, -1.0]))
    losses = torch.tensor([0.7, 0.2])
    expected = math.exp(-0.5) * 0.7 + 0.25 + math.exp(1.0) * 0.2 - 0.5
    loss = weighting(losses)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    torch.testing.assert_close(weighting.log_variance.grad, torch.tensor([0.5 - 0.7 * math.exp(-0.5), 0.5 - 0.2 * math.exp(1.0)]))


def test_the_chain_is_the_logit_of_the_product_of_probabilities():
    z = torch.randn(50, 3, dtype=DOUBLE) * 3
    product = torch.sigmoid(z).cumprod(dim=1)
    torch.testing.assert_close(chain_logits(z), torch.logit(product), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("first", [-1e4, -50.0, 0.0, 50.0, 1e4])
@pytest.mark.parametrize("second", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_the_chain_and_its_gradient_stay_finite_at_extreme_logits(first, second):
    z = torch.tensor([[first, second]], requires_grad=True)
    logits = chain_logits(z)
    loss = task_losses(logits, torch.tensor([[1.0, 1.0]])).sum()
    loss.backward()
    assert all(torch.isfinite(values).all() for values in (logits, loss, z.grad))
    assert chain_logits(z.detach().bfloat16()).dtype == torch.float32


def test_the_chain_in_float32_is_accurate_for_small_and_large_logits():
    """Relative to 1 + |logit|, and for the gradient, of which tiny values count too, relative to itself."""
    z = torch.randn(10_000, 3) * 8
    z.requires_grad_()
    exact = z.detach().double().requires_grad_()
    logits, expected = chain_logits(z), chain_logits(exact)
    logits.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(logits, expected.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(z.grad, exact.grad.float(), rtol=1e-5, atol=0)


def test_a_later_event_of_the_chain_is_never_likelier():
    logits = chain_logits(torch.randn(10_000, 4) * 30)
    assert (logits.diff(dim=1) <= 0).all()


def test_the_calibrator_is_the_mean_excess_of_a_later_event():
    p = torch.tensor([[0.2, 0.5], [0.6, 0.1]], dtype=DOUBLE)
    assert expectation_calibrator(torch.logit(p)).item() == pytest.approx(0.15)
    assert expectation_calibrator(torch.logit(p), torch.tensor([1.0, 3.0])).item() == pytest.approx(0.075)
