// The rule by which the forward takes one launch for all steps, on cases counted by hand. The compiler checks them.
#pragma once

#include "tiles.h"

namespace dcrnn_fast::cuda {

// Half precision on a card of 132 multiprocessors, counted by hand: a slice holds 64 columns, a tile of one launch 16 rows and 64 units.
static_assert(one_launch_is_shorter(1, 1, 1, 1), "B = 64, D = 64, T = 2: 1 slice a step against 1 and a launch");
static_assert(one_launch_is_shorter(1, 1, 1, 2), "B = 2048, D = 64, T = 1");
static_assert(one_launch_is_shorter(4, 4, 1, 1), "B = 256, D = 256, T = 2: 16 slices a step against 4 and a launch");
static_assert(!one_launch_is_shorter(10, 10, 1, 3), "B = 256, D = 624, T = 2: 100 slices a step against 30 and a launch");
static_assert(!one_launch_is_shorter(10, 10, 1, 2), "B = 2048, D = 624, T = 1: 100 against 20 and a launch");
static_assert(!one_launch_is_shorter(10, 10, 8, 10), "B = 8192, D = 624, T = 2: 800 against 100 and a launch");

}  // namespace dcrnn_fast::cuda
