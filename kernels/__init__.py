"""Triton kernels of dcrnn_fast; the sources live in ``kernels/`` and install as ``dcrnn_fast.kernels``."""

from importlib.util import find_spec


def unavailable_reason() -> str | None:
    """Why Triton kernels cannot run here, or None where nothing stands in their way. Imports nothing and queries no device."""
    if find_spec("triton") is None:
        return "Triton is not installed; a CUDA build of PyTorch brings it, elsewhere: pip install 'dcrnn_fast[triton]'"
    return "this version has no Triton kernels yet"
