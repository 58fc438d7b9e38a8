"""Which torchrec, fbgemm and PyTorch go together, as a message for those who have others."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

from ..errors import MissingExtra, shown

TESTED = "torchrec 1.8.0 with fbgemm-gpu-cpu 1.8.0 was tested with PyTorch 2.13"
INSTALL = "pip install 'dcrnn_fast[torchrec]' && pip install --no-deps torchrec==1.8.0"
"""torchrec itself comes without its requirements: they name fbgemm's build for CUDA, and the extra has the one for the CPU."""


def installed(*names: str) -> str:
    """The first of these distributions that is installed, with its version, or that the first one is not.

    >>> from dcrnn_fast.torchrec.versions import installed
    >>> installed("no-such-package", "neither-this")
    'no no-such-package'
    """
    for name in names:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return f"no {names[0]}"


def unusable(error: BaseException) -> MissingExtra:
    """The error to raise where torchrec cannot be imported."""
    found = f"{installed('torchrec')}, {installed('fbgemm-gpu-cpu', 'fbgemm-gpu')} and PyTorch {torch.__version__} are installed"
    why = f"importing torchrec fails with {type(error).__name__}: {shown(str(error))}"
    return MissingExtra(f"dcrnn_fast.torchrec cannot be used: {found}, and {why}. {TESTED}; install these: {INSTALL}")
