"""The losses of conditionals by inverse propensities, on logs whose propensities and labels are known for all rows.

Rows with a high click rate convert more often: what is seen in clicked rows is not what all rows would do.
Each loss is linear in the clicks, so its expectation over them is its value at their probabilities.
"""

import pytest
import torch

from dcrnn_fast import counterfactual_losses
from dcrnn_fast.nn.losses import FLOOR, task_losses
from tests.operators.problems import DOUBLE

NAN = float("nan")


class Log:
    """3,000 rows: P(click) from 0.05 to 0.9, P(consume | click), the consume that each row would have, and a prediction of it."""

    def __init__(self, rows=3000):
        draw = torch.Generator().manual_seed(0)
        taste = torch.randn(rows, dtype=DOUBLE, generator=draw)
        self.p = (0.05 + 0.85 * torch.sigmoid(2 * taste - 1))[:, None]
        self.q = torch.sigmoid(1.5 * taste - 0.5)[:, None]
        self.consume = (torch.rand(rows, 1, dtype=DOUBLE, generator=draw) < self.q).double()
        self.z = torch.randn(rows, 1, dtype=DOUBLE, generator=draw) - 1
        self.draw = draw

    def clicks(self):
        return (torch.rand(len(self.p), 1, dtype=DOUBLE, generator=self.draw) < self.p).double()

    def labels(self, clicks):
        return torch.cat([clicks, self.consume], dim=1)

    def mean_loss(self, z=None):
        """The log loss over all rows, which no log shows."""
        return task_losses(self.z if z is None else z, self.consume)[0]


LOG = Log()
WRONG_P = LOG.p.mean().expand_as(LOG.p)


def expected(propensity, z=LOG.z):
    """The expectation over the clicks."""
    return counterfactual_losses(z, LOG.labels(LOG.p), propensity, propensity_floor=0.0)[0]


def test_true_propensities_give_the_loss_over_all_rows():
    torch.testing.assert_close(expected(LOG.p), LOG.mean_loss())
    assert abs(expected(WRONG_P) / LOG.mean_loss() - 1) > 0.2, "this log has no selection bias to show"


def test_the_gradient_has_the_expectation_of_that_over_all_rows_too():
    z = LOG.z.clone().requires_grad_()
    over_all, found = (torch.autograd.grad(loss, z)[0] for loss in (LOG.mean_loss(z), expected(LOG.p, z)))
    torch.testing.assert_close(found, over_all)


def test_no_gradient_reaches_the_propensity():
    p, z = (value.clone().requires_grad_() for value in (LOG.p, LOG.z))
    counterfactual_losses(z, LOG.labels(LOG.clicks()), p).sum().backward()
    assert p.grad is None
    assert z.grad.any()


def test_a_propensity_below_the_floor_counts_as_the_floor():
    z, labels = torch.zeros(3, 1, dtype=DOUBLE), torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], dtype=DOUBLE)
    p = torch.tensor([[0.001], [0.5], [0.399]], dtype=DOUBLE)  # their mean is 0.3
    loss = torch.log(torch.tensor(2.0, dtype=DOUBLE)) / 3
    torch.testing.assert_close(counterfactual_losses(z, labels, p)[0], loss * (1 / (FLOOR * 0.3) + 2))
    torch.testing.assert_close(counterfactual_losses(z, labels, p, propensity_floor=0.0)[0], loss * (1000 + 2))
    torch.testing.assert_close(counterfactual_losses(z, labels, 0 * p, propensity_floor=0.0)[0], loss * 2e6)


def test_sample_weights_weigh_rows_as_repeating_them_does():
    rows = torch.tensor([0, 0, 2, 3, 3, 3, 4])
    weight = torch.bincount(rows, minlength=5).to(DOUBLE)
    z, p, labels = LOG.z[:5], LOG.p[:5], LOG.labels(LOG.clicks())[:5]
    found = counterfactual_losses(z, labels, p, sample_weight=weight)
    torch.testing.assert_close(found, counterfactual_losses(z[rows], labels[rows], p[rows]))


def test_labels_lost_at_random_do_not_bias_the_loss():
    lost = (torch.rand(len(LOG.p), 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) < 0.4).repeat(1, 2)
    unknown_click, unknown_consume = lost.clone(), lost.clone()
    unknown_click[:, 1], unknown_consume[:, 0] = False, False
    for unknown in (unknown_click, unknown_consume, lost):
        labels = torch.where(unknown, NAN, LOG.labels(LOG.p))
        found = counterfactual_losses(LOG.z, labels, LOG.p, propensity_floor=0.0)[0]
        assert float(found / LOG.mean_loss()) == pytest.approx(1, abs=0.05)


def test_a_label_that_is_known_in_clicked_rows_alone_gives_the_same_loss():
    clicks = LOG.clicks()
    labels = LOG.labels(clicks)
    hidden = torch.where(torch.cat([torch.zeros_like(clicks), clicks == 0], dim=1) == 1, NAN, labels)
    torch.testing.assert_close(counterfactual_losses(LOG.z, hidden, LOG.p), counterfactual_losses(LOG.z, labels, LOG.p))


@pytest.mark.parametrize("labels", [[[NAN, NAN], [NAN, 1.0]], [[0.0, 0.0], [0.0, NAN]], [[1.0, NAN], [NAN, 1.0]]])
def test_without_a_known_label_after_a_click_the_loss_is_zero(labels):
    z = torch.randn(2, 1, requires_grad=True)
    loss = counterfactual_losses(z, torch.tensor(labels), torch.full((2, 1), 0.5)).sum()
    loss.backward()
    assert loss == 0
    assert torch.equal(z.grad, torch.zeros(2, 1))


def test_of_a_sampled_log_the_loss_is_that_over_the_rows_of_the_log_before():
    rate, found, uncorrected = 0.2, [], []
    sampled_p = LOG.p / (LOG.p + (1 - LOG.p) * rate)
    for _ in range(100):
        clicks = LOG.clicks()
        kept = (clicks + (torch.rand(len(clicks), 1, dtype=DOUBLE, generator=LOG.draw) < rate) > 0)[:, 0]
        z, labels = LOG.z[kept], LOG.labels(clicks)[kept]
        found.append(counterfactual_losses(z, labels, LOG.p[kept], negative_rate=rate, propensity_floor=0.0)[0])
        uncorrected.append(counterfactual_losses(z, labels, sampled_p[kept], propensity_floor=0.0)[0])

    def away(values):
        losses = torch.stack(values)
        return float((losses.mean() - LOG.mean_loss()) / (losses.std() / len(losses) ** 0.5))

    assert abs(away(found)) < 3
    assert abs(away(uncorrected)) > 30, "the rows of the sample convert more often than those of the log"


def test_each_conditional_of_a_longer_funnel_has_the_loss_of_its_pair():
    draw = torch.Generator().manual_seed(2)
    z, p = (torch.rand(50, 2, dtype=DOUBLE, generator=draw) for _ in range(2))
    labels = torch.rand(50, 3, dtype=DOUBLE, generator=draw).round().cummin(dim=1).values
    both = counterfactual_losses(z, labels, p)
    for pair in range(2):
        one = slice(pair, pair + 1)
        torch.testing.assert_close(both[one], counterfactual_losses(z[:, one], labels[:, pair : pair + 2], p[:, one]))


def test_the_loss_is_finite_in_float32_at_extreme_logits_and_propensities():
    z = torch.tensor([[90.0], [-90.0], [0.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    loss = counterfactual_losses(z, labels, torch.tensor([[1e-30], [0.0], [1.0]])).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
