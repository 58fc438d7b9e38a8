"""``python -m scripts.resources``: what the compiled kernels take of a GPU, found without one."""

SHARED_MEMORY = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}
"""The GPUs by compute capability, and the most bytes of shared memory that a block of threads gets there, by NVIDIA's programming guide."""
