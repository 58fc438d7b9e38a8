// The kernels of param_gather: they copy rows of the two banks by index, and sum the gradients of these rows. With T tasks, R rows a task,
// S shared and P private rows:
//
//     out[t, r] = shared[index[t, r]]  where index[t, r] < S, else private[t, index[t, r] - S]
#pragma once

#include "cross_rnn.h"
#include "memory.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {

inline constexpr int gather_threads = 256;

// A row is `words` Words long; 2^lanes neighbouring threads copy it.
template <typename Word>
struct GatherArguments {
  BankRows<Word> bank;
  const int32_t* index;
  Word* out;
  int64_t rows, words;
  int lanes;
};

// A grid of any size covers all places t * R + r. A kernel cannot raise an error: of an index out of range nothing is read, and the row
// becomes NaN, which is all ones in every dtype.
template <typename Word>
__global__ __launch_bounds__(gather_threads) void param_gather(const __grid_constant__ GatherArguments<Word> p) {
  const int64_t thread = int64_t(blockIdx.x) * gather_threads + threadIdx.x, threads = int64_t(gridDim.x) * gather_threads;
  const int64_t lane = thread & ((int64_t(1) << p.lanes) - 1);
  Word nan;
  __builtin_memset(&nan, 0xff, sizeof nan);
  for (int64_t at = thread >> p.lanes; at < p.bank.banks.tasks * p.rows; at += threads >> p.lanes) {
    const int value = p.index[at];
    const bool valid = value >= 0 && value < p.bank.banks.rows();
    const Word* const row = valid ? p.bank.row(at / p.rows, 0, value, p.words) : nullptr;
    for (int64_t word = lane; word < p.words; word += int64_t(1) << p.lanes) p.out[at * p.words + word] = valid ? row[word] : nan;
  }
}

// The inverse of an index [T, R] is, for every bank row, the list of places that read it, in ascending order. A place is t * R + r. Values
// out of range belong to no bank row.
//
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

// The sum of the gradients [T, R, values] of the places that read a bank row.
template <typename T>
struct RowSum {
  const T* gradient;
  InverseIndex inverse;
  T *shared, *own;  // [S, values], [T, P, values]
  Banks banks;
  int64_t rows, values;
};

inline constexpr int row_sum_threads = 128, row_sum_values = 4, row_sum_block = row_sum_threads * row_sum_values;

// A block owns `row_sum_block` values of one bank row, and adds in the order of the row's list: no atomics, and the same bits on every run.
template <typename T>
__global__ __launch_bounds__(row_sum_threads) void param_gather_sum(const __grid_constant__ RowSum<T> p) {
  const int64_t blocks = (p.values + row_sum_block - 1) / row_sum_block, bank_row = blockIdx.x / blocks, own = bank_row - p.banks.shared;
  const int64_t first = blockIdx.x % blocks * row_sum_block + threadIdx.x;
  const uint32_t* const places = p.inverse.places + (own < 0 ? 0 : (p.banks.tasks + own / p.banks.own) * p.rows);
  const PlaceRange range = p.inverse.ranges[bank_row];
  accumulator<T> sums[row_sum_values] = {};
#pragma unroll 4
  for (uint32_t i = range.first; i < range.last; ++i) {
    const T* const from = p.gradient + places[i] * p.values + first;
#pragma unroll
    for (int k = 0; k < row_sum_values; ++k)
      if (first + k * row_sum_threads < p.values) sums[k] += widen(from[k * row_sum_threads]);
  }
  T* const to = (own < 0 ? p.shared + bank_row * p.values : p.own + own * p.values) + first;
#pragma unroll
  for (int k = 0; k < row_sum_values; ++k)
    if (first + k * row_sum_threads < p.values) round_to(to[k * row_sum_threads], sums[k]);
}

}  // namespace dcrnn_fast::cuda
