"""Which tiles a launch gets, by its sizes and the card."""

from itertools import product

import pytest
import torch

pytest.importorskip("triton")

from dcrnn_fast.errors import BackendUnavailable
from dcrnn_fast.kernels import common, cross_rnn, cross_rnn_backward, low_rank, low_rank_backward

FULL = {"forward": cross_rnn.TILES, "backward": cross_rnn_backward.TILES, "inputs": cross_rnn_backward.INPUT_TILES}
LOW_RANK = {"low rank": low_rank.TILES, "low rank, backward": low_rank_backward.TILES}
CARDS = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}


@pytest.mark.parametrize(("tiles", "rank"), [*((tiles, 0) for tiles in FULL.values()), *product(LOW_RANK.values(), (1, 32, 64))])
@pytest.mark.parametrize("kind", common.ITEMSIZE)
@pytest.mark.parametrize("arch", CARDS)
def test_every_kernel_has_a_tile_for_every_card(tiles, rank, kind, arch):
    for gates in (1, 2):
        assert tiles.fitting(kind, gates, rank, common.Card(100, CARDS[arch]))


@pytest.mark.parametrize("tiles", [*FULL.values(), *LOW_RANK.values()])
def test_all_tiles_with_as_many_rows_have_products_of_one_length(tiles):
    """The length decides the order of sums, so it must not be timed."""
    for ranks in tiles.by_kind.values():
        for of_rank in ranks.values():
            lengths = {tile.rows: tile.products for tile in of_rank}
            assert all(lengths[tile.rows] == tile.products for tile in of_rank)
            assert len({(tile.columns, tile.warps, tile.stages) for tile in of_rank if tile.rows == of_rank[0].rows}) <= 6


def test_a_card_without_room_for_any_tile_is_refused_in_words():
    with pytest.raises(BackendUnavailable, match="no tiles of cross_rnn for bfloat16 that fit 32000 bytes of shared memory"):
        cross_rnn.TILES.fitting("bfloat16", 2, 0, common.Card(40, 32_000))


def test_a_bank_that_begins_between_two_boundaries_is_copied():
    whole = torch.arange(64.0)
    for start, copied in ((0, False), (1, True), (2, True), (4, False)):
        bank = whole[start:]
        found = common.aligned(bank)
        assert torch.equal(found, bank)
        assert found.data_ptr() % 16 == 0
        assert (found.data_ptr() != bank.data_ptr()) == copied
