// The inverse of an index [T, R]: for every bank row the list of places that read it, in ascending order. A place is t * R + r. Values out
// of range belong to no bank row.
#pragma once

#include "machine.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {

// places[first] to places[last - 1] are those that read a bank row. The lists of the shared rows share the first T * R places, those of
// task t's private rows the R places from (T + t) * R on.
struct PlaceRange {
  uint32_t first, last;
};
struct InverseIndex {
  PlaceRange* ranges;  // [S], then [T, P]
  uint32_t* places;    // [2, T, R]
};

struct InvertArguments {
  RowIndex index;
  InverseIndex inverse;
};

inline constexpr int invert_warps = 8;

// A warp owns a bank row. It goes twice through the places that may read it, 32 at a time: first it counts those that read this row, and
// those that read an earlier row of the same bank, whose lists come before; then it writes the list. There are no atomics.
__global__ __launch_bounds__(32 * invert_warps) inline void invert_index(const __grid_constant__ InvertArguments p) {
  const Banks& banks = p.index.banks;
  const int64_t rows = p.index.rows, bank_row = int64_t(blockIdx.x) * invert_warps + threadIdx.x / 32, own = bank_row - banks.shared;
  if (bank_row >= banks.shared + banks.tasks * banks.own) return;
  const bool is_shared = own < 0;
  const uint32_t lane = threadIdx.x % 32, lower_lanes = (1u << lane) - 1;
  const int64_t task = is_shared ? 0 : own / banks.own, count = is_shared ? banks.tasks * rows : rows;
  const uint32_t row = is_shared ? bank_row : own % banks.own, first_value = is_shared ? 0 : banks.shared;
  // what the index says at a place, as a row of this bank; more than any past the last place
  const auto row_at = [&](int64_t place) { return place < count ? uint32_t(p.index.values[task * rows + place]) - first_value : ~0u; };
  PlaceRange range{0, 0};
  for (int64_t start = 0; start < count; start += 32) {
    const uint32_t found = row_at(start + lane);
    range.first += __popc(__ballot_sync(~0u, found < row));
    range.last += __popc(__ballot_sync(~0u, found <= row));
  }
  if (lane == 0) p.inverse.ranges[bank_row] = range;
  uint32_t* list = p.inverse.places + (is_shared ? 0 : (banks.tasks + task) * rows) + range.first;
  for (int64_t start = 0; start < count; start += 32) {
    const bool reads = row_at(start + lane) == row;
    const uint32_t readers = __ballot_sync(~0u, reads);
    if (reads) list[__popc(readers & lower_lanes)] = static_cast<uint32_t>(task * rows + start + lane);
    list += __popc(readers);
  }
}

}  // namespace dcrnn_fast::cuda
