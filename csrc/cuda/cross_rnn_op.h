// What the operators of both cells share: their arguments as the kernels read them, and the matrix products for the weights' gradients.
#pragma once

#include <array>

#include "binding.h"
#include "kernel_override.h"

namespace dcrnn_fast::cuda {

using torch::stable::empty_like;
using torch::stable::from_blob;
using torch::stable::new_empty;

template <typename T>
inline constexpr ScalarType wide_type = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

// Kernels round the number of columns up to whole tiles in 32 bits.
inline constexpr int64_t most_columns = int64_t{1} << 30;

template <typename SomeArguments>
void prepare(SomeArguments& a) {
  a.prepare(kernel_device());
  a.x0 = dense(a.x0, "x0");
  check(a.tasks() <= 65535, "index: tasks: got ", a.tasks(), ", expected at most 65535 on a GPU");
  check(a.columns() <= most_columns, "shared_weight: got ", a.columns(), " columns, C + D, expected at most ", most_columns, " on a GPU");
}

template <typename T>
void read_arguments(Problem<T>& p, const Arguments& a, const Current& current) {
  p.x0 = data<const T>(a.x0), p.context = a.context ? data<const T>(*a.context) : nullptr;
  p.shared_weight = data<const T>(a.shared_weight), p.shared_bias = data<const T>(a.shared_bias);
  p.private_weight = data<const T>(a.private_weight), p.private_bias = data<const T>(a.private_bias);
  p.index = data<const int32_t>(a.index);
  const auto number = [](int64_t size) { return static_cast<int>(size); };
  p.batch = a.batch(), p.tasks = number(a.tasks()), p.dim = number(a.dim()), p.columns = number(a.context_columns());
  p.gates = number(a.gates()), p.steps = number(a.steps), p.rows = number(a.index.size(1));
  p.num_shared = number(a.shared_weight.size(0)), p.num_private = number(a.private_weight.size(1));
  p.tf32 = a.allow_tf32, p.device = current.device, p.schedule = schedule_override, p.tiles = tiles_override;
}

// [tasks, rows, columns] in memory that the tensor does not own.
template <typename T>
Tensor matrices(const Tensor& like, const T* values, std::array<int64_t, 3> sizes, std::array<int64_t, 3> strides) {
  return from_blob(const_cast<T*>(values), sizes, strides, like.device(), like.scalar_type());
}

// The products of each group of steps (see step_groups), [groups, tasks, width, K]: gradients [tasks, L, B, width], transposed, times the
// context and the state that these steps multiplied by the weights. states is [tasks, L - 1, B, D].
template <typename T>
Tensor input_products(const Problem<T>& p, const Tensor& like, const T* states, const T* gradients, int64_t width) {
  const int64_t groups = step_groups(p), inner = p.columns + p.dim;
  Tensor out = new_empty(like, {groups, p.tasks, width, inner});
  T* const products = data<T>(out);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t steps = p.weight_steps() > 1 || group == 0 ? 1 : p.steps - 1, rows = steps * p.batch, before = group * p.batch;
    const Tensor left = matrices(like, gradients + before * width, {p.tasks, width, rows}, {p.steps * p.batch * width, 1, width});
    T* const group_products = products + group * p.tasks * width * inner;
    const auto add_columns = [&](const T* right, int64_t columns, int64_t task_stride, int64_t column) {
      multiply(matrices(like, group_products + column, {p.tasks, width, columns}, {width * inner, inner, 1}), left,
               matrices(like, right, {p.tasks, rows, columns}, {task_stride, columns, 1}));
    };
    if (p.columns) add_columns(p.context + before * p.columns, p.columns, 0, 0);
    if (group == 0)
      add_columns(p.x0, p.dim, 0, p.columns);
    else
      add_columns(states + (group - 1) * p.states(), p.dim, (p.steps - 1) * p.states(), p.columns);
  }
  return out;
}

}  // namespace dcrnn_fast::cuda
