// Sums that end the backwards, each in one order: there are no atomics, and every run gives the same bits. And the gradients of the weights
// and biases: products of a library, summed over the tasks.
#pragma once

#include "cross_rnn.h"
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

// An operand [T, L, B, columns] of such a product. Strides are in values, from task to task and from row to row.
template <typename T>
struct Operand {
  const T* values;
  int64_t task_stride, row_stride, columns;
};

// out = left^T right, for each step of the weights and each task; out goes from task to task and from row to row by its strides.
template <typename T>
void multiply_rows(const Cell<T>& cell, const Operand<T>& left, const Operand<T>& right, T* out, int64_t task_stride, int64_t row_stride) {
  const int64_t tasks = cell.tasks(), rows = cell.steps / cell.weight_steps() * cell.batch;
  for (int64_t step = 0; step < cell.weight_steps(); ++step)
    cell.gpu.multiply(
        {out + step * tasks * task_stride, {tasks, left.columns, right.columns}, {task_stride, row_stride, 1}},
        {left.values + step * rows * left.row_stride, {tasks, left.columns, rows}, {left.task_stride, 1, left.row_stride}},
        {right.values + step * rows * right.row_stride, {tasks, rows, right.columns}, {right.task_stride, right.row_stride, 1}});
}

// Sums products [W, T, G, rows, size] into the gradients of both banks.
template <typename T>
void sum_products(const Cell<T>& cell, const Banks& banks, const T* products, int64_t size, T* shared, T* own) {
  const int64_t task = cell.gates * banks.rows() * size;
  launch_sum(BankSum<T, T>{products, task, banks.tasks * task, banks, shared, own, cell.gates, size}, cell.gpu);
}

// The gradients of rows [G, K], whose products with [context, h] have the gradients [T, L, B, G, rows]. states is [T, L, B, D], before each
// step; of one step it may be null.
template <typename T>
void sum_input_products(const Cell<T>& cell, const Banks& banks, const T* gradients, const T* states, T* shared, T* own) {
  const int64_t inner = cell.columns + cell.dim, width = cell.gates * banks.rows(), rows = cell.steps * cell.batch;
  const auto products = cell.gpu.template memory<T>(banks.weight_steps * banks.tasks * width * inner);
  const Operand<T> left{gradients, rows * width, width, width};
  const Operand<T> state{states ? states : cell.x0, states ? rows * cell.dim : 0, cell.dim, cell.dim};
  if (cell.columns) multiply_rows(cell, left, {cell.context, 0, cell.columns, cell.columns}, products.get(), width * inner, inner);
  multiply_rows(cell, left, state, products.get() + cell.columns, width * inner, inner);
  sum_products<T>(cell, banks, products.get(), inner, shared, own);
}

// The gradients of the biases, from the sums over every tile of rows [T, L, row_tiles, G, D].
template <typename T>
void sum_biases(const Cell<T>& cell, const accumulator<T>* sums, int64_t row_tiles, const GradientPointers<T>& out) {
  using A = accumulator<T>;
  const Banks& banks = cell.bias.banks;
  const int64_t width = int64_t(cell.gates) * cell.dim, tiles = row_tiles * (cell.steps / cell.weight_steps());
  const int64_t groups = banks.tasks * banks.weight_steps;
  // first over the tiles of the steps that share weights: such a group is a step here, a tile is a task
  const auto of_groups = cell.gpu.template memory<A>(groups * width);
  launch_sum(BankSum<A, A>{sums, width, tiles * width, {tiles, groups, 1, 0}, of_groups.get(), nullptr, 1, width}, cell.gpu);
  launch_sum(BankSum<A, T>{of_groups.get(), banks.weight_steps * width, width, banks, out.shared_bias, out.private_bias, cell.gates, 1},
             cell.gpu);
}

}  // namespace dcrnn_fast::cuda
