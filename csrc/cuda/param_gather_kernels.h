// The kernels of param_gather: they copy rows of the two banks by index, and sum the gradients of these rows. With T tasks, R rows a task,
// S shared and P private rows:
//
//     out[t, r] = shared[index[t, r]]  where index[t, r] < S, else private[t, index[t, r] - S]
#pragma once

#include "bank_rows.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {

inline constexpr int gather_threads = 256;

// A row is `words` Words long; 2^lanes neighbouring threads copy it.
template <typename Word>
struct GatherArguments {
  BankRows<Word> bank;
  const int32_t* index;
  Word* out;
  int64_t places, words;
  int rows, lanes;
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

// A grid of any size covers all places t * R + r. A row whose index is out of range becomes NaN, which is all ones in every dtype.
template <typename Word>
__global__ __launch_bounds__(gather_threads) void param_gather(const __grid_constant__ GatherArguments<Word> p) {
  const int64_t thread = int64_t(blockIdx.x) * gather_threads + threadIdx.x, threads = int64_t(gridDim.x) * gather_threads;
  const int64_t lane = thread & ((int64_t(1) << p.lanes) - 1);
  for (int64_t at = thread >> p.lanes; at < p.places; at += threads >> p.lanes) {
    const Word* const row = p.bank.row(p.index[at], at / p.rows, p.words);
    for (int64_t word = lane; word < p.words; word += int64_t(1) << p.lanes)
      p.out[at * p.words + word] = row ? row[word] : all_ones<Word>();
  }
}

// Sums of gradients into the bank rows, which have `parts` parts of `part` values. Value k of part g of the gradient of row r of task t is
// the sum over c < copies of
//
//     from[t * task_stride + r / step_rows * step_stride + r % step_rows * row_stride + g * part_stride + c * copy_stride + k]
template <typename From, typename To>
struct BankSum {
  const From* from;
  InverseIndex inverse;
  To *shared, *own;  // [num_shared, parts * part], [tasks, num_private, parts * part]
  int tasks, rows, num_shared, num_private, parts, copies, step_rows;
  int64_t part, task_stride, step_stride, row_stride, part_stride, copy_stride;
};

inline constexpr int sum_warps = 4, sum_values = 4, sum_block = sum_warps * 32 * sum_values;
inline constexpr int sum_blocks_at_once = 6;  // as many as the registers allow: of more, the compiler spills a few

// A block owns `sum_block` values of one bank row, a warp 32 * sum_values of them. The warp reads the list of places that read the row, and
// adds their gradients in its order, by task, then by row, then by copy: no atomics, and the same bits on every run. Each lane finds where
// the gradient of one place of 32 begins, and gives it to the others.
template <typename From, typename To>
__global__ __launch_bounds__(32 * sum_warps, sum_blocks_at_once) void param_gather_sum(const __grid_constant__ BankSum<From, To> p) {
  using A = accumulator<To>;
  const int lane = threadIdx.x % 32;
  const int64_t size = p.parts * p.part, blocks = (size + sum_block - 1) / sum_block, bank_row = blockIdx.x / blocks;
  const int64_t first = blockIdx.x % blocks * sum_block + threadIdx.x / 32 * 32 * sum_values;
  if (first >= size) return;
  const int64_t own = bank_row - p.num_shared;
  const bool is_shared = own < 0;
  const int64_t first_place = is_shared ? 0 : own / p.num_private * p.rows;
  const uint32_t* const places = p.inverse.places + (is_shared ? 0 : int64_t(p.tasks) * p.rows + first_place);
  const PlaceRange range = p.inverse.ranges[bank_row];
  // lanes past the end read the warp's first value too and store nothing: loads without a condition go out together
  int64_t offsets[sum_values];
#pragma unroll
  for (int i = 0; i < sum_values; ++i) {
    const int64_t mine = first + lane + 32 * i, value = mine < size ? mine : first;
    offsets[i] = value / p.part * p.part_stride + value % p.part;
  }
  A sums[sum_values] = {};
  for (uint32_t left = range.last - range.first, next = range.first; left > 0;) {
    const uint32_t count = left < 32 ? left : 32;
    const int64_t place = first_place + (lane < int(count) ? places[next + lane] : 0), row = place % p.rows;
    const int64_t start = place / p.rows * p.task_stride + row / p.step_rows * p.step_stride + row % p.step_rows * p.row_stride;
    for (uint32_t i = 0; i < count; ++i) {
      const From* from = p.from + __shfl_sync(~0u, start, i);
#pragma unroll 2
      for (int copy = 0; copy < p.copies; ++copy, from += p.copy_stride) {
        A more[sum_values];
#pragma unroll
        for (int k = 0; k < sum_values; ++k) more[k] = widen(from[offsets[k]]);
#pragma unroll
        for (int k = 0; k < sum_values; ++k) sums[k] += more[k];
      }
    }
    left -= count, next += count;
  }
  To* const to = is_shared ? p.shared + bank_row * size : p.own + own * size;
#pragma unroll
  for (int i = 0; i < sum_values; ++i)
    if (first + lane + 32 * i < size) round_to(to[first + lane + 32 * i], sums[i]);
}

}  // namespace dcrnn_fast::cuda
