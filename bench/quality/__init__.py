"""Every model by one protocol: the same tuning, training, selection on validation rows and test. docs/evidence/quality.md describes it."""
