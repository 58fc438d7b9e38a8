"""In which precision a training step computes. Parameters, gradients and the optimiser stay float32; evaluation computes in float32."""

from __future__ import annotations

import torch


def select_precision(name: str, device: torch.device) -> str:
    """``name``, or for ``auto`` what the device multiplies fast: bfloat16 on a CPU of AMD's with AVX512-BF16 and a GPU of at least sm_80.

    On a CPU of Intel's with AVX512-BF16 and without AMX, a training step took longer in bfloat16 than in float32.

    >>> select_precision("float32", torch.device("cpu"))
    'float32'
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # older versions do not say
        fast = bool(capabilities.get("avx512_bf16") and capabilities.get("sse4a"))  # sse4a: AMD's alone
    return "bfloat16" if fast else "float32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The block in which a training step computes its logits."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
