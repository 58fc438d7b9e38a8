"""Triton kernels of dcrnn_fast; the sources live in ``kernels/`` and install as ``dcrnn_fast.kernels``."""

import os
from importlib.util import find_spec

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's interpreter runs the kernels, on any device and slowly: for tests."""


def unavailable_reason() -> str | None:
    """Why Triton kernels cannot run here, or None where nothing stands in their way. Imports no kernel and queries no device."""
    if find_spec("triton") is None:
        return "Triton is not installed; a CUDA build of PyTorch brings it, elsewhere: pip install 'dcrnn_fast[triton]'"
    if torch.version.cuda is None and not INTERPRETED:
        return f"PyTorch {torch.__version__} was built without CUDA; install a CUDA build, or for tests set TRITON_INTERPRET=1"
    return None
