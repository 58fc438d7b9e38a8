"""When a run evaluates, and when it stops."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import StoppingConfig

EVALUATIONS = 4
"""An epoch, unless ``early_stopping.every_steps`` says how often."""
HALF_LIVES = 12
"""Of the mean of the weights: a run so far is at least so many, or the mean of a short one would still hold its first weights."""


@dataclass
class EarlyStopping:
    """Takes one value an evaluation. A tie is no improvement: of equal evaluations the earliest counts as the best."""

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
        """Whether ``patience`` evaluations have passed without a better value, or three times as many while the start is the best."""
        return self.waited >= self.patience * (1 if self.best_step else 3)


@dataclass(frozen=True)
class EvaluationPolicy:
    """When to evaluate within an epoch of ``epoch_steps``, and how much of the mean of the weights is kept."""

    config: StoppingConfig
    epoch_steps: int

    def is_due(self, batch: int, step: int) -> bool:
        """Whether one belongs after these batches of an epoch, or steps of the run. Another one always ends an epoch."""
        if batch == self.epoch_steps:
            return False
        if self.config.every_steps:
            return step % self.config.every_steps == 0
        return batch * EVALUATIONS // self.epoch_steps > (batch - 1) * EVALUATIONS // self.epoch_steps

    def decay(self, steps: int, trained: int) -> float:
        """The part of the mean that an evaluation keeps, ``steps`` after the one before; the weights are ``trained`` for so many in all."""
        half_life = min(self.config.ema_half_life * self.epoch_steps, trained / HALF_LIVES)
        return 0.5 ** (steps / half_life) if half_life else 0.0
