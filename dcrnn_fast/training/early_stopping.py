"""Early stopping: which epoch was the best on the validation rows, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Takes one value an epoch. A tie is no improvement: of equal epochs the earliest counts as the best.

    >>> stopping = EarlyStopping(larger_is_better=True, patience=2)
    >>> [stopping.update(auc, epoch) for epoch, auc in enumerate([0.7, 0.8, 0.8, 0.75], start=1)]
    [True, True, False, False]
    >>> stopping.best_epoch, stopping.should_stop
    (2, True)
    """

    larger_is_better: bool
    patience: int
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0

    def update(self, value: float, epoch: int) -> bool:
        """Take the value of an epoch and say whether it is the best so far."""
        better = self.best is None or (value > self.best if self.larger_is_better else value < self.best)
        if better:
            self.best, self.best_epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
        return better

    @property
    def should_stop(self) -> bool:
        """Whether ``patience`` epochs have passed without a better value."""
        return self.waited >= self.patience
