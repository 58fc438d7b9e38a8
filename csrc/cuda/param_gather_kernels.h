// The kernels of param_gather: they copy rows of the two banks by index, and sum the gradients of these rows. With T tasks, R rows a task,
// S shared and P private rows:
//
//     out[t, r] = shared[index[t, r]]  where index[t, r] < S, else private[t, index[t, r] - S]
#pragma once

#include "cross_rnn.h"
#include "inverse_index_kernels.h"
#include "memory.h"

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

struct alignas(16) Word16 {
  uint32_t words[4];
};

template <typename Word>
DCRNN_DEVICE Word all_ones() {
  if constexpr (std::is_same_v<Word, Word16>)
    return {{~0u, ~0u, ~0u, ~0u}};
  else
    return static_cast<Word>(~Word(0));
}

// A grid of any size covers all places t * R + r. A kernel cannot raise an error: of an index out of range nothing is read, and the row
// becomes NaN, which is all ones in every dtype.
template <typename Word>
__global__ __launch_bounds__(gather_threads) void param_gather(const __grid_constant__ GatherArguments<Word> p) {
  const int64_t thread = int64_t(blockIdx.x) * gather_threads + threadIdx.x, threads = int64_t(gridDim.x) * gather_threads;
  const int64_t lane = thread & ((int64_t(1) << p.lanes) - 1);
  for (int64_t at = thread >> p.lanes; at < p.bank.banks.tasks * p.rows; at += threads >> p.lanes) {
    const int value = p.index[at];
    const bool valid = value >= 0 && value < p.bank.banks.rows();
    const Word* const row = valid ? p.bank.row(at / p.rows, 0, value, p.words) : nullptr;
    for (int64_t word = lane; word < p.words; word += int64_t(1) << p.lanes)
      p.out[at * p.words + word] = valid ? row[word] : all_ones<Word>();
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
