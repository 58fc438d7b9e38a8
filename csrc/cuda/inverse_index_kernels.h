// The inverse of an index [T, R]: for every bank row the list of places that read it, by task, then by row. A place is t * R + r. Values
// out of range belong to no bank row.
//
// A counting sort. A block owns up to `invert_rows` rows of the shared bank, which every task's places may read, or of a task's private
// bank, which only this task's places read. Its warps take equal parts of these places, one after another, and go through them twice: first
// they count the places of each bank row; then, after a prefix sum in order of bank row and warp, they write each place into its list.
// Lanes that hold the same bank row find one another by a vote. There are no atomics.
#pragma once

#include "memory.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {

// For every bank row, places[first] to places[last - 1] are the places that read it, in ascending order. The lists of the shared rows share
// the first T * R places, those of task t's private rows the R places from (T + t) * R on.
struct PlaceRange {
  uint32_t first, last;
};
struct InverseIndex {
  PlaceRange* ranges;  // [S], then [T, P]
  uint32_t* places;    // [2, T, R]
};

inline constexpr int invert_warps = 8, invert_threads = 32 * invert_warps, invert_rows = 4 * invert_threads;
// Of each warp and bank row a counter; of each warp two sums.
inline constexpr int invert_shared_bytes = (invert_warps * invert_rows + 2 * invert_warps) * 4;

struct InvertArguments {
  RowIndex index;
  InverseIndex inverse;
};

// Calls visit(place, index[place]) for the places from `begin` to `end`, by all lanes together; for a lane past the end with ~0.
template <typename Visit>
DCRNN_DEVICE void visit_places(const int32_t* index, int64_t begin, int64_t end, const Visit& visit) {
  constexpr int ahead = 4;
  for (int64_t start = begin; start < end; start += 32 * ahead) {
    const int64_t place = start + threadIdx.x % 32;
    uint32_t values[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) values[i] = place + 32 * i < end ? static_cast<uint32_t>(index[place + 32 * i]) : ~0u;
#pragma unroll
    for (int i = 0; i < ahead; ++i) visit(place + 32 * i, values[i]);
  }
}

// Makes the block's counters [warps, rows] their exclusive sums, by bank row, then by warp, plus all threads' `lower`. Writes the ends of
// the lists of the bank rows from `first` on, `count` of them.
DCRNN_DEVICE void sum_counters(uint32_t* counters, uint32_t lower, PlaceRange* ranges, uint32_t count) {
  using Four = Pack<uint32_t, 4>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t* const of_warps = counters + invert_warps * invert_rows;  // the counters' sum of each warp, then the sum of its `lower`
  Four mine[invert_warps];
  uint32_t total = 0;
#pragma unroll
  for (int w = 0; w < invert_warps; ++w) {
    mine[w] = reinterpret_cast<const Four*>(counters + w * invert_rows)[threadIdx.x];
#pragma unroll
    for (int i = 0; i < 4; ++i) total += mine[w].values[i];
  }
  uint32_t until = total;  // the sum over this lane and those below it
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t below = __shfl_sync(~0u, until, lane - distance);
    if (lane >= distance) until += below;
    lower += __shfl_xor_sync(~0u, lower, distance);
  }
  if (lane == 31) of_warps[warp] = until, of_warps[invert_warps + warp] = lower;
  __syncthreads();
  uint32_t next = until - total;
#pragma unroll
  for (int w = 0; w < invert_warps; ++w) next += (w < warp ? of_warps[w] : 0) + of_warps[invert_warps + w];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t row = 4 * threadIdx.x + i, first = next;
#pragma unroll
    for (int w = 0; w < invert_warps; ++w) {
      const uint32_t more = mine[w].values[i];
      mine[w].values[i] = next, next += more;
    }
    if (row < count) ranges[row] = {first, next};
  }
#pragma unroll
  for (int w = 0; w < invert_warps; ++w) reinterpret_cast<Four*>(counters + w * invert_rows)[threadIdx.x] = mine[w];
}

// One block for each `invert_rows` rows of the shared bank, then for those of each private bank.
__global__ __launch_bounds__(invert_threads) inline void invert_index(const __grid_constant__ InvertArguments p) {
  uint32_t* const counters = reinterpret_cast<uint32_t*>(shared_memory());
  const Banks& banks = p.index.banks;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t shared_blocks = (banks.shared + invert_rows - 1) / invert_rows, own = blockIdx.x - shared_blocks;
  const int64_t private_blocks = (banks.own + invert_rows - 1) / invert_rows;
  const bool is_shared = own < 0;
  const int64_t task = is_shared ? 0 : own / private_blocks, first_place = task * p.index.rows;
  const uint32_t bank_rows = is_shared ? banks.shared : banks.own;
  const uint32_t first = uint32_t(is_shared ? blockIdx.x : own % private_blocks) * invert_rows;
  const uint32_t count = bank_rows - first < invert_rows ? bank_rows - first : invert_rows;
  const uint32_t first_value = is_shared ? 0 : banks.shared;  // what the index calls this bank's row 0
  const int32_t* const index = p.index.values + first_place;
  const int64_t places = is_shared ? banks.tasks * p.index.rows : p.index.rows, steps = (places + 31) / 32;
  const auto step_of = [&](int w) { return steps * w / invert_warps * 32; };
  const int64_t begin = step_of(warp), end = step_of(warp + 1) < places ? step_of(warp + 1) : places;

  for (int i = threadIdx.x; i < invert_warps * invert_rows; i += invert_threads) counters[i] = 0;
  __syncthreads();
  uint32_t* const mine = counters + warp * invert_rows;
  // Lanes of the same bank row: the lowest one, where the others' votes end, is their leader.
  const auto alike = [&](uint32_t row) { return __match_any_sync(~0u, row < count ? row : ~0u); };
  uint32_t lower = 0;  // places that read a row of this bank below the block's
  visit_places(index, begin, end, [&](int64_t, uint32_t value) {
    const uint32_t row = value - first_value - first, together = alike(row);
    lower += value - first_value < first;
    if (row < count && __ffs(int(together)) == lane + 1) mine[row] += __popc(together);
    __syncwarp();
  });
  __syncthreads();
  sum_counters(counters, lower, p.inverse.ranges + (is_shared ? 0 : banks.shared + task * banks.own) + first, count);
  __syncthreads();
  uint32_t* const list = p.inverse.places + (is_shared ? 0 : (banks.tasks + task) * p.index.rows);
  visit_places(index, begin, end, [&](int64_t place, uint32_t value) {
    const uint32_t row = value - first_value - first, together = alike(row);
    const uint32_t next = row < count ? mine[row] : 0;
    __syncwarp();
    if (row < count) {
      list[next + __popc(together & ((1u << lane) - 1))] = static_cast<uint32_t>(first_place + place);
      if (__ffs(int(together)) == lane + 1) mine[row] = next + __popc(together);
    }
    __syncwarp();
  });
}

}  // namespace dcrnn_fast::cuda
