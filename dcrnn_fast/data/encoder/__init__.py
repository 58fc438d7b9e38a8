"""Encodes rows in memory as the training data was encoded."""
