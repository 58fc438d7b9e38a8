"""Early stopping: which evaluation on the validation rows was the best, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass


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
        """Whether ``patience`` evaluations have passed without a better value."""
        return self.waited >= self.patience
