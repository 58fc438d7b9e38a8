"""From a DataFrame to a ranker, by scikit-learn's conventions."""

from .classifier import FunnelClassifier

__all__ = ["FunnelClassifier"]
