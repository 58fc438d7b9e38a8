// What the operators of both cells share: their arguments as the kernels read them.
#pragma once

#include "../cell_arguments.h"
#include "binding.h"
#include "kernel_override.h"

namespace dcrnn_fast::cuda {

inline constexpr int64_t most_columns = int64_t{1} << 30;  // kernels round it up to whole tiles in 32 bits

template <typename SomeArguments>
void prepare(SomeArguments& a) {
  a.prepare();
  a.x0 = dense(a.x0, "x0");
  check(a.tasks() <= 65535, "private_weight: tasks: got ", a.tasks(), ", expected at most 65535 on a GPU");
  check(a.columns() <= most_columns, "shared_weight: got ", a.columns(), " columns, C + D, expected at most ", most_columns, " on a GPU");
}

template <typename T>
void read_arguments(Cell<T>& cell, const CellArguments& a, const CurrentDevice& current) {
  cell.x0 = data<const T>(a.x0), cell.context = a.context ? data<const T>(*a.context) : nullptr;
  cell.weight = {a.banks(), data<const T>(a.shared_weight), data<const T>(a.private_weight)};
  cell.bias = {a.banks(), data<const T>(a.shared_bias), data<const T>(a.private_bias)};
  cell.batch = a.batch(), cell.dim = static_cast<int>(a.dim()), cell.columns = static_cast<int>(a.context_columns());
  cell.gates = static_cast<int>(a.gates()), cell.steps = static_cast<int>(a.steps), cell.tf32 = a.allow_tf32;
  cell.gpu = gpu_of(current, a.x0), cell.schedule = schedule_override, cell.tiles = tiles_override;
}

// The gradients of x0, of the weights and biases, and of the context, as tensors and as the kernels write them.
struct GradientTensors {
  Tensor x0, shared_weight, shared_bias, private_weight, private_bias, context;

  GradientTensors(const CellArguments& a, int64_t grad_mask) {
    const bool has_work = a.batch() && a.tasks(), weights = grad_mask & grad_weights;
    x0 = new_gradient(a.x0, grad_mask & grad_x0, has_work, {a.batch(), a.dim()});
    shared_weight = new_gradient(a.x0, weights, has_work, with_trailing({}, a.shared_weight, 0));
    shared_bias = new_gradient(a.x0, weights, has_work, with_trailing({}, a.shared_bias, 0));
    private_weight = new_gradient(a.x0, weights, has_work, with_trailing({}, a.private_weight, 0));
    private_bias = new_gradient(a.x0, weights, has_work, with_trailing({}, a.private_bias, 0));
    context = new_gradient(a.x0, grad_mask & grad_context, has_work, {a.steps, a.batch(), a.context_columns()});
  }

  template <typename T>
  GradientPointers<T> pointers(int64_t grad_mask) const {
    return {data<T>(x0),
            data<T>(context),
            (grad_mask & grad_weights) != 0,
            data<T>(shared_weight),
            data<T>(shared_bias),
            data<T>(private_weight),
            data<T>(private_bias)};
  }
};

}  // namespace dcrnn_fast::cuda
