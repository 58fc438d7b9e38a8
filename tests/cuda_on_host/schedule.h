// The rules by which the forward takes one launch for all steps, and the low-rank cell its tiles, on cases counted by hand. The compiler
// checks them.
#pragma once

#include "low_rank_tiles.h"

namespace dcrnn_fast::cuda {

// Half precision on a card of 132 multiprocessors, counted by hand: a slice holds 64 columns, a tile of one launch 16 rows and 64 units.
static_assert(one_launch_is_shorter(1, 1, 1, 1), "B = 64, D = 64, T = 2: 1 slice a step against 1 and a launch");
static_assert(one_launch_is_shorter(1, 1, 1, 2), "B = 2048, D = 64, T = 1");
static_assert(one_launch_is_shorter(4, 4, 1, 1), "B = 256, D = 256, T = 2: 16 slices a step against 4 and a launch");
static_assert(!one_launch_is_shorter(10, 10, 1, 3), "B = 256, D = 624, T = 2: 100 slices a step against 30 and a launch");
static_assert(!one_launch_is_shorter(10, 10, 1, 2), "B = 2048, D = 624, T = 1: 100 against 20 and a launch");
static_assert(!one_launch_is_shorter(10, 10, 8, 10), "B = 8192, D = 624, T = 2: 800 against 100 and a launch");

// The low-rank cell, T = 2 on such a card: the waves of tiles of 16, 64 and 128 rows.
static_assert(low_rank_cost(1, 16) < low_rank_cost(1, 64), "B = 64: 8 blocks against 2");
static_assert(low_rank_cost(1, 64) < low_rank_cost(4, 16) && low_rank_cost(1, 64) < low_rank_cost(1, 128), "B = 4096: 512, 128, 64 blocks");
static_assert(low_rank_cost(1, 128) < low_rank_cost(2, 64) && low_rank_cost(1, 128) < low_rank_cost(8, 16), "B = 8192: 1024, 256, 128");

}  // namespace dcrnn_fast::cuda
