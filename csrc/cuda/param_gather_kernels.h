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

inline constexpr int sum_warps = 4, sum_values = 4, sum_block = sum_warps * 32 * sum_values;
inline constexpr int sum_blocks_at_once = 6;  // as many as the registers allow: of more, the compiler spills a few

// A block owns `sum_block` values of one bank row, a warp 32 * sum_values of them. The warp searches the index for the places that read the
// row, and adds their gradients by task, then by row, then by copy: no atomics, and the same bits on every run. An index out of range
// belongs to no bank row.
template <typename From, typename To>
__global__ __launch_bounds__(32 * sum_warps, sum_blocks_at_once) void param_gather_sum(const __grid_constant__ BankSum<From, To> p) {
  using A = accumulator<To>;
  const int lane = threadIdx.x % 32;
  const int64_t size = p.parts * p.part, blocks = (size + sum_block - 1) / sum_block, bank_row = blockIdx.x / blocks;
  const int64_t first = blockIdx.x % blocks * sum_block + threadIdx.x / 32 * 32 * sum_values;
  if (first >= size) return;
  const int64_t own = bank_row - p.num_shared;
  const bool is_shared = own < 0;
  const int wanted = is_shared ? int(bank_row) : p.num_shared + int(own % p.num_private);
  const int64_t first_task = is_shared ? 0 : own / p.num_private, last_task = is_shared ? p.tasks : first_task + 1;
  // lanes past the end read the warp's first value too and store nothing: loads without a condition go out together
  int64_t offsets[sum_values];
#pragma unroll
  for (int i = 0; i < sum_values; ++i) {
    const int64_t mine = first + lane + 32 * i, value = mine < size ? mine : first;
    offsets[i] = value / p.part * p.part_stride + value % p.part;
  }
  A sums[sum_values] = {};
  for (int64_t task = first_task; task < last_task; ++task)
    for (int start = 0; start < p.rows; start += 32) {
      const int mine = start + lane;
      uint32_t found = __ballot_sync(~0u, mine < p.rows && p.index[task * p.rows + mine] == wanted);
      for (; found; found &= found - 1) {
        const int row = start + __ffs(static_cast<int>(found)) - 1;
        const From* from = p.from + task * p.task_stride + row / p.step_rows * p.step_stride + row % p.step_rows * p.row_stride;
#pragma unroll 2
        for (int copy = 0; copy < p.copies; ++copy, from += p.copy_stride) {
          A more[sum_values];
#pragma unroll
          for (int i = 0; i < sum_values; ++i) more[i] = widen(from[offsets[i]]);
#pragma unroll
          for (int i = 0; i < sum_values; ++i) sums[i] += more[i];
        }
      }
    }
  To* const to = is_shared ? p.shared + bank_row * size : p.own + own * size;
#pragma unroll
  for (int i = 0; i < sum_values; ++i)
    if (first + lane + 32 * i < size) round_to(to[first + lane + 32 * i], sums[i]);
}

}  // namespace dcrnn_fast::cuda
