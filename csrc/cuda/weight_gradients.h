// The gradients of the weights and biases: products of a library, summed over the tasks.
#pragma once

#include "cross_rnn.h"
#include "sums.h"

namespace dcrnn_fast::cuda {

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
