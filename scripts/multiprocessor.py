"""What a GPU's multiprocessors have, by compute capability, and how many programs (blocks of threads) fit one at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Multiprocessor:
    """What the programs that run on it at a time share."""

    shared_memory: int
    threads: int
    programs: int = 32
    registers: int = 65536
    tensor_memory: int = 512


MULTIPROCESSORS = {
    80: Multiprocessor(167_936, 2048),
    90: Multiprocessor(233_472, 2048),
    100: Multiprocessor(233_472, 2048),
    120: Multiprocessor(102_400, 1536, programs=24),
}
"""By compute capability, from the table in NVIDIA's CUDA C++ programming guide."""

RESERVED_SHARED_MEMORY = 1024
"""Of every program. What is left of a multiprocessor's is the most that one program is granted."""


def programs(arch: int, warps: int, registers: int, shared: int, tensor_memory: int = 0) -> int:
    """How many programs a multiprocessor runs at a time. A warp's registers come in units of 256."""
    limit = MULTIPROCESSORS[arch]
    warp_registers = -(-registers * 32 // 256) * 256
    counts = [
        limit.programs,
        limit.threads // (32 * warps),
        limit.registers // warp_registers // warps,
        limit.shared_memory // (shared + RESERVED_SHARED_MEMORY),
    ]
    return min(counts + ([limit.tensor_memory // tensor_memory] if tensor_memory else []))
