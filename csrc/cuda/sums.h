// Sums that end the backwards, each in one order: there are no atomics, and every run gives the same bits.
#pragma once

#include "../banks.h"
#include "gpu.h"
#include "memory.h"

namespace dcrnn_fast::cuda {

inline constexpr int sum_threads = 256, sum_values = 4, sum_block = sum_threads * sum_values;

// The gradients of the rows of both banks, from those of every task: a shared row's is the sum over the tasks.
template <typename From, typename To>
struct BankSum {
  const From* from;                  // of each task and step of the weights [parts, rows, size]
  int64_t task_stride, step_stride;  // in values
  Banks banks;
  To *shared, *own;  // rows [parts, size]
  int parts;
  int64_t size;
};

// A block owns `sum_block` values of a part of one bank row: the shared rows of all steps come first.
template <typename From, typename To>
__global__ __launch_bounds__(sum_threads) void sum_into_banks(const __grid_constant__ BankSum<From, To> p) {
  const int64_t blocks = (p.size + sum_block - 1) / sum_block, bank_row = blockIdx.x / blocks;
  const int64_t own_row = bank_row - p.banks.weight_steps * p.banks.shared;
  const bool is_shared = own_row < 0;
  const int64_t in_bank = is_shared ? bank_row : own_row, rows = is_shared ? p.banks.shared : p.banks.own;
  const int64_t step = in_bank / rows % p.banks.weight_steps, row = in_bank % rows + (is_shared ? 0 : p.banks.shared);
  const int64_t first_task = is_shared ? 0 : in_bank / rows / p.banks.weight_steps, end = is_shared ? p.banks.tasks : first_task + 1;
  const int64_t first = blockIdx.x % blocks * sum_block + threadIdx.x, part = blockIdx.y;
  const From* const from = p.from + step * p.step_stride + (part * p.banks.rows() + row) * p.size + first;
  accumulator<To> sums[sum_values] = {};
#pragma unroll 4
  for (int64_t task = first_task; task < end; ++task)
#pragma unroll
    for (int i = 0; i < sum_values; ++i)
      if (first + i * sum_threads < p.size) sums[i] += widen(from[task * p.task_stride + i * sum_threads]);
  To* const to = (is_shared ? p.shared : p.own) + (in_bank * p.parts + part) * p.size + first;
#pragma unroll
  for (int i = 0; i < sum_values; ++i)
    if (first + i * sum_threads < p.size) round_to(to[i * sum_threads], sums[i]);
}

template <typename From, typename To>
void launch_sum(const BankSum<From, To>& sum, const Gpu& gpu) {
  const int64_t rows = sum.banks.weight_steps * (sum.banks.shared + sum.banks.tasks * sum.banks.own);
  const Grid grid{rows * divide_up(sum.size, sum_block), sum.parts};
  launch(sum_into_banks<From, To>, grid, sum_threads, 0, gpu.stream, sum);
}

// to [count] = the sum over the tasks of from [tasks, count].
template <typename T>
void sum_tasks(const accumulator<T>* from, T* to, int64_t count, int64_t tasks, const Gpu& gpu) {
  launch_sum(BankSum<accumulator<T>, T>{from, count, 0, {tasks, 1, 1, 0}, to, nullptr, 1, count}, gpu);
}

}  // namespace dcrnn_fast::cuda
