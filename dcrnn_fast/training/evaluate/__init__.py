"""Evaluation: predictions of a split, metrics, calibration and plots."""
