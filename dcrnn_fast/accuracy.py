"""How far a result may be from the exact one."""

from __future__ import annotations

import torch
from torch import Tensor

CEILING = {"bfloat16": 5e-2, "float16": 8e-3, "tf32": 2e-3, "float32": 1e-5, "float64": 1e-13}
"""The largest :func:`relative_error` of an output or a gradient, by dtype; "tf32" is float32 with products in tf32."""


def relative_error(got: Tensor, exact: Tensor) -> float:
    """``||got - exact|| / ||exact||``, where ``exact`` is in float64."""
    return float((got.double() - exact).norm() / exact.norm().clamp_min(torch.finfo(torch.float64).tiny))
