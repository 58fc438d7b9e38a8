"""Wrong functions in place of right ones, for tests that prove that the fuzzer of hostile calls can fail."""

import os
import time

import torch

from dcrnn_fast import functional


def aborts(*arguments, **options):
    os.abort()


def leaves(*arguments, **options):
    os._exit(3)


def sleeps(*arguments, **options):
    time.sleep(60)


def grows(*arguments, **options):
    raise ValueError(f"index: got {len(b'x' * (700 << 20))}")


def speaks_raw(*arguments, **options):
    raise RuntimeError("torch_call_dispatcher(index) API call failed")


def names_nothing(*arguments, **options):
    raise ValueError("dcrnn_fast: bad argument")


def accepts_anything(shared, private, index, **options):
    return shared[:0]


def returns_rubbish(shared, private, index, **options):
    return torch.full((*index.shape, *shared.shape[1:]), 3e30, dtype=shared.dtype)


def plant(name: str) -> None:
    """In the process of the calls: a wrong function takes the place of ``param_gather``."""
    functional.param_gather = globals()[name]
