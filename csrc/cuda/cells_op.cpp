// PyTorch's operators cross_rnn, low_rank_cross_rnn and their backwards on a GPU.
#include "../cell_arguments.h"
#include "binding.h"
#include "kernel_override.h"

namespace dcrnn_fast::cuda {
namespace {

constexpr int64_t most_columns = int64_t{1} << 30;  // kernels round it up to whole tiles in 32 bits

template <typename T>
Cell<T> cell_of(const CellArguments& a) {
  Cell<T> cell{};
  cell.x0 = data<const T>(a.x0), cell.context = a.context ? data<const T>(*a.context) : nullptr;
  cell.weight = {a.banks(), data<const T>(a.shared_weight), data<const T>(a.private_weight)};
  cell.bias = {a.banks(), data<const T>(a.shared_bias), data<const T>(a.private_bias)};
  cell.batch = a.batch(), cell.dim = static_cast<int>(a.dim()), cell.columns = static_cast<int>(a.context_columns());
  cell.gates = static_cast<int>(a.gates()), cell.steps = static_cast<int>(a.steps), cell.tf32 = a.allow_tf32;
  cell.schedule = schedule_override, cell.tiles = tiles_override;
  return cell;
}

template <typename T>
LowRankCell<T> cell_of(const LowRankArguments& a) {
  return {cell_of<T>(static_cast<const CellArguments&>(a)),
          {a.projection_banks(), data<const T>(a.shared_projection), data<const T>(a.private_projection)}};
}

template <typename SomeArguments>
void prepare(SomeArguments& a) {
  a.prepare();
  a.x0 = dense(a.x0, "x0");
  check(a.tasks() <= 65535, "private_weight: tasks: got ", a.tasks(), ", expected at most 65535 on a GPU");
  check(a.columns() <= most_columns, "shared_weight: got ", a.columns(), " columns, C + D, expected at most ", most_columns, " on a GPU");
  if constexpr (std::is_same_v<SomeArguments, LowRankArguments>)
    check(a.rank() <= most_columns, "private_projection: got rank ", a.rank(), ", expected at most ", most_columns, " on a GPU");
}

// Calls body with the arguments as the kernels read them, and a value of their type.
template <typename SomeArguments, typename Body>
void with_cell(const SomeArguments& a, const Body& body) {
  const CurrentDevice current(a.x0);
  with_type<BFloat16, Half>(a.x0, "x0", [&](auto zero) {
    auto cell = cell_of<decltype(zero)>(a);
    cell.gpu = gpu_of(current, a.x0);
    body(cell, zero);
  });
}

template <typename SomeArguments>
Forward run(SomeArguments& a, bool saved) {
  prepare(a);
  const Tensor out = allocated(a.x0, a.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = allocated(a.x0, a.activations_shape(saved), "x0, steps: the activations of all tasks");
  with_cell(a, [&](const auto& cell, auto zero) {
    forward(cell, data<decltype(zero)>(out), a.return_states, data<decltype(zero)>(activations));
  });
  return {out, activations};
}

Tensor gradient_of(const CellArguments& a, const Tensor& input, bool wanted) {
  return new_gradient(a.x0, wanted, a.batch() && a.tasks(), with_trailing({}, input, 0));
}

CrossRnnGradients new_gradients(const CellArguments& a, int64_t grad_mask) {
  const bool weights = grad_mask & grad_weights;
  return {gradient_of(a, a.x0, grad_mask & grad_x0),
          gradient_of(a, a.shared_weight, weights),
          gradient_of(a, a.shared_bias, weights),
          gradient_of(a, a.private_weight, weights),
          gradient_of(a, a.private_bias, weights),
          new_gradient(a.x0, grad_mask & grad_context, a.batch() && a.tasks(), {a.steps, a.batch(), a.context_columns()})};
}

LowRankGradients new_gradients(const LowRankArguments& a, int64_t grad_mask) {
  const bool projections = grad_mask & grad_projections;
  return std::tuple_cat(new_gradients(static_cast<const CellArguments&>(a), grad_mask),
                        std::tuple{gradient_of(a, a.shared_projection, projections), gradient_of(a, a.private_projection, projections)});
}

template <typename SomeArguments, typename Gradients = decltype(new_gradients(std::declval<SomeArguments&>(), 0))>
Gradients run(SomeArguments& a, const Tensor& grad, const Tensor& activations, int64_t grad_mask) {
  prepare(a);
  a.check_backward(grad, activations, grad_mask);
  const Gradients out = new_gradients(a, grad_mask);
  const Tensor dense_grad = dense(grad, "grad"), saved = dense(activations, "activations");
  with_cell(a, [&](const auto& cell, auto zero) {
    using T = decltype(zero);
    const auto pointers = std::apply([](const auto&... gradient) { return GradientPointers<T>{data<T>(gradient)...}; }, out);
    if (!cell.is_empty()) backward(cell, data<const T>(dense_grad), a.return_states, data<const T>(saved), pointers);
  });
  return out;
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cross_rnn<&dcrnn_fast::cuda::run>));
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cross_rnn_backward<&dcrnn_fast::cuda::run>));
  m.impl("low_rank_cross_rnn", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn<&dcrnn_fast::cuda::run>));
  m.impl("low_rank_cross_rnn_backward", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn_backward<&dcrnn_fast::cuda::run>));
}
