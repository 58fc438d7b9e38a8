"""What a GPU's multiprocessor has, by compute capability, and how many programs (blocks of threads) it can run at the same time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Multiprocessor:
    """What the programs on a multiprocessor share, besides shared memory. Registers are of 32 bits, tensor memory is counted in columns."""

    threads: int
    programs: int = 32
    registers: int = 65536
    tensor_memory: int = 512


MULTIPROCESSORS = {80: Multiprocessor(2048), 90: Multiprocessor(2048), 100: Multiprocessor(2048), 120: Multiprocessor(1536, programs=24)}
"""By compute capability, from the table in NVIDIA's CUDA C++ programming guide."""

SHARED_MEMORY = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}
"""The most shared memory that one program gets, in bytes."""

RESERVED_SHARED_MEMORY = 1024
"""What the GPU takes for itself from a multiprocessor's shared memory, in bytes for each program."""


def programs(arch: int, warps: int, registers: int, shared: int, tensor_memory: int = 0) -> int:
    """How many programs of so many warps, registers a thread and bytes of shared memory a multiprocessor runs at the same time."""
    limit = MULTIPROCESSORS[arch]
    warp_registers = -(-registers * 32 // 256) * 256  # a warp gets registers in units of 256
    counts = [
        limit.programs,
        limit.threads // (32 * warps),
        limit.registers // warp_registers // warps,
        (SHARED_MEMORY[arch] + RESERVED_SHARED_MEMORY) // (shared + RESERVED_SHARED_MEMORY),
    ]
    return min(counts + ([limit.tensor_memory // tensor_memory] if tensor_memory else []))
