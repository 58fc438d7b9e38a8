"""``python -m scripts.resources``: what the compiled kernels take of a GPU, found without one."""
