"""A GPU that launches nothing: Triton compiles and prepares kernels for it, without a GPU.

It takes the place of Triton's driver in this process, so use it in a process of its own, without ``TRITON_INTERPRET``. Tensors on the CPU
stand for those on a GPU. What kernels would write is not written.
"""

from __future__ import annotations

from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver


class FakeGpu:
    """A driver for Triton, of an H100."""

    def __init__(self) -> None:
        self.utils = self
        self.launcher_cls = lambda source, metadata: lambda *arguments: None

    def install(self) -> FakeGpu:
        """Make it Triton's driver."""
        driver.set_active(self)
        return self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132}

    def load_binary(self, *arguments: Any) -> tuple[int, int, int, int, int]:
        """The module, the function, its registers and spills, and the threads that a program may have."""
        return 1, 1, 64, 0, 1024

    def unload_module(self, module: int) -> None:
        pass
