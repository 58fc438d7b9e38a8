"""Whether launches keep to what was timed; run as a module, in a process without the interpreter."""

import sys

import torch
import triton

from dcrnn_fast.kernels import common, cross_rnn
from dcrnn_fast.ops import triton as _operators  # noqa: F401  registers them
from tests.operators.fake_gpu import FakeGpu
from tests.operators.problems import cross_arguments

TUNER = cross_rnn.cross_rnn_step


def call(batch, dim):
    """The configuration of a forward's launches, and how many tiles were timed for it."""
    arguments = cross_arguments(batch=batch, dim=dim, steps=2, dtype=torch.bfloat16)
    before = len(TIMED)
    torch.ops.dcrnn_fast_triton.cross_rnn(**arguments)
    return str(TUNER.best_config), len(TIMED) - before


def timed(run, quantiles):
    """The second tile that is timed is the fastest."""
    run()
    TIMED.append(TUNER.fn)
    return [1.0 / len(TIMED)] * len(quantiles)


if __name__ == "__main__":
    FakeGpu().install()
    TIMED = []
    triton.testing.do_bench = timed
    common.card_of = lambda device: common.Card(2, 232_448)  # so that 64 rows a tile keep it busy
    tiles = [tile for tile in cross_rnn.TILES.by_kind["bfloat16"][0] if tile.rows == 64]
    first, count = call(64, 64)
    if sys.argv[1] == "from the cache":
        assert (first, count) == (str(tiles[1].config()), 0), (first, count)
        sys.exit()
    assert (first, count) == (str(tiles[1].config()), len(tiles)), (first, count)
    assert call(64, 64) == (first, 0), "the same sizes were timed again"
    assert call(60, 64) == (first, 0), "a batch is no size of its own"
    assert call(64, 48)[1] == len(tiles), "other units were not timed"
    common._captures = lambda: True
    assert call(64, 40) == (str(tiles[0].config()), 0), "a graph that is captured cannot time"
