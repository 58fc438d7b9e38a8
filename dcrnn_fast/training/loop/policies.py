"""When a run evaluates, when it stops, and when it writes a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import StoppingConfig
from ..folder.checkpoint import STEPS, CheckpointPace
from ..ranks import Ranks

EVALUATIONS = 4
"""An epoch, unless ``early_stopping.every_steps`` says how often."""
HALF_LIVES = 12
"""Of the mean of the weights: a run so far is at least so many, or the mean of a short one would still hold its first weights."""


@dataclass
class EarlyStopping:
    """Takes one value an evaluation. A tie is no improvement: of equal evaluations the earliest counts as the best.

    >>> stopping = EarlyStopping(larger_is_better=True, patience=2)
    >>> [stopping.update(auc, step) for step, auc in ((100, 0.7), (200, 0.8), (300, 0.8), (400, 0.75))]
    [True, True, False, False]
    >>> stopping.best_step, stopping.should_stop
    (200, True)
    """

    larger_is_better: bool
    patience: int
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def update(self, value: float, step: int) -> bool:
        """Take the value after ``step`` steps and say whether it is the best so far."""
        better = self.best is None or (value > self.best if self.larger_is_better else value < self.best)
        if better:
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1
        return better

    @property
    def should_stop(self) -> bool:
        """Whether ``patience`` evaluations have passed without a better value; three times as many while none is better than the start's.

        Logistic regression is a good start, and what the towers add takes a while.
        """
        return self.waited >= self.patience * (1 if self.best_step else 3)


@dataclass(frozen=True)
class EvaluationPolicy:
    """When to evaluate within an epoch: ``early_stopping.every_steps``, or four times; and how much of the mean of the weights is kept.

    ``epoch_steps`` is the length of an epoch.
    """

    config: StoppingConfig
    epoch_steps: int

    def is_due(self, batch: int, step: int) -> bool:
        """Whether one belongs after these batches of an epoch, or steps of the run. Another one always ends an epoch.

        >>> policy = EvaluationPolicy(StoppingConfig(), epoch_steps=10)
        >>> [batch for batch in range(1, 10) if policy.is_due(batch, step=50 + batch)]
        [3, 5, 8]
        """
        if batch == self.epoch_steps:
            return False
        if self.config.every_steps:
            return step % self.config.every_steps == 0
        return batch * EVALUATIONS // self.epoch_steps > (batch - 1) * EVALUATIONS // self.epoch_steps

    def decay(self, steps: int, trained: int) -> float:
        """The part of the mean that an evaluation keeps, ``steps`` after the one before; the weights are ``trained`` for so many in all.

        0 for new weights, of which there is no mean.
        """
        half_life = min(self.config.ema_half_life * self.epoch_steps, trained / HALF_LIVES)
        return 0.5 ** (steps / half_life) if half_life else 0.0


class CheckpointPolicy:
    """When to write a checkpoint within an epoch; another one always ends an epoch.

    One is due after every ``every`` steps, ``checkpoint_every``. With None it is after 200, and left out where writing would take more than
    a tenth of the time.
    """

    def __init__(self, every: int | None, ranks: Ranks) -> None:
        self.every, self.ranks, self.pace = every, ranks, CheckpointPace()

    def is_due(self, step: int) -> bool:
        """Whether one belongs after this step, by the step alone."""
        return step % (self.every or STEPS) == 0

    def is_left_out(self) -> bool:
        """Whether one that is due would take too much time. All ranks must ask together."""
        return not self.every and not self.ranks.from_first(self.pace.allows)
