// PyTorch's operators cross_rnn and cross_rnn_backward on a GPU.
#include "cell_binding.h"

namespace dcrnn_fast::cuda {
namespace {

CrossRnn run(CellArguments& a, int64_t saved) {
  prepare(a);
  check_saves(saved);
  const CurrentDevice current(a.x0);
  const Tensor out = allocated(a.x0, a.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = allocated(a.x0, a.activations_shape(saved), "x0, steps: the activations of all tasks");
  with_type<BFloat16, Half>(a.x0, "x0", [&](auto zero) {
    using T = decltype(zero);
    Cell<T> cell{};
    read_arguments(cell, a, current);
    forward(cell, data<T>(out), a.return_states, data<T>(activations));
  });
  return {out, torch::stable::new_empty(a.x0, {0}), activations};
}

CrossRnnGradients run(CellArguments& a, const Tensor& grad, const Tensor& states, const Tensor& saved, int64_t grad_mask) {
  prepare(a);
  a.check_backward(grad, states, saved, grad_mask);
  const CurrentDevice current(a.x0);
  const Tensor dense_grad = dense(grad, "grad"), activations = dense(saved, "activations");
  const GradientTensors out(a, grad_mask);
  with_type<BFloat16, Half>(a.x0, "x0", [&](auto zero) {
    using T = decltype(zero);
    Cell<T> cell{};
    read_arguments(cell, a, current);
    if (!cell.is_empty())
      backward(cell, data<const T>(dense_grad), a.return_states, data<const T>(activations), out.pointers<T>(grad_mask));
  });
  return {out.x0, out.shared_weight, out.shared_bias, out.private_weight, out.private_bias, out.context};
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cross_rnn<&dcrnn_fast::cuda::run>));
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cross_rnn_backward<&dcrnn_fast::cuda::run>));
}
