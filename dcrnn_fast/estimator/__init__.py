"""From a DataFrame to a ranker, by scikit-learn's conventions."""

from .classifier import FunnelClassifier
from .task import FunnelTaskClassifier

__all__ = ["FunnelClassifier", "FunnelTaskClassifier"]
