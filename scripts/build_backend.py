"""setuptools' build backend, but for one thing: it compiles against the PyTorch that is installed.

pip builds in an environment of its own. There it would fetch and unpack a second PyTorch, perhaps for another CUDA than the one which is to
load the extension. Where none is installed yet, that is what it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

MINIMUM = (2, 10)
WHERE = "import importlib.metadata as m; found = m.distribution('torch'); print(found.version, found.locate_file(''), sep='\\n')"


def _see_installed_torch() -> bool:
    """Whether a PyTorch can be imported, or this Python has one that is new enough, whose folder then goes to the end of the path."""
    if find_spec("torch") is not None:
        return True
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
    done = subprocess.run([sys.executable, "-c", WHERE], env=outside, capture_output=True, text=True, check=False)
    if done.returncode:
        return False
    version, folder = done.stdout.splitlines()
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM:
        return False  # pip is about to replace it
    sys.path.append(folder)
    return True


TORCH = [] if _see_installed_torch() else ["torch>=2.10", "numpy"]


def get_requires_for_build_wheel(config_settings: Mapping[str, Any] | None = None) -> list[str]:
    """What pip installs before it builds a wheel."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *TORCH]


def get_requires_for_build_editable(config_settings: Mapping[str, Any] | None = None) -> list[str]:
    """What pip installs before it builds an editable installation."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *TORCH]
