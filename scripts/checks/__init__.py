"""Checks of the compiled extensions: sanitizers, and one build under several versions of PyTorch."""
