"""A GPU that launches nothing: Triton compiles kernels for it, and notes each launch. For the host's time, and for tests of launches.

It takes the place of Triton's driver in this process, so use it in a process of its own, without ``TRITON_INTERPRET``. Tensors on the CPU
stand for those on a GPU. What kernels would write is not written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver


class Launch(NamedTuple):
    """A launch: the kernel's name, the grid, and the arguments in the order of its parameters."""

    kernel: str
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


class FakeGpu:
    """A driver for Triton, of an H100."""

    def __init__(self) -> None:
        self.utils, self.launches = self, []
        self.noting = False

        class Launcher:
            def __init__(launcher, source: Any, metadata: Any) -> None:  # noqa: N805
                launcher.name = metadata.name

            def __call__(launcher, x: int, y: int, z: int, *rest: Any) -> None:  # noqa: N805
                if self.noting:  # after the stream, function, packed metadata, launch metadata and two hooks
                    self.launches.append(Launch(launcher.name, (x, y, z), rest[6:]))

        self.launcher_cls = Launcher

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
