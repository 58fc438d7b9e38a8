"""Helpers for every layer: argument checks, files, locks, JSON and YAML read within bounds, and what PyTorch does around a call."""
