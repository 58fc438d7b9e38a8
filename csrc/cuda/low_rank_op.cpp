// PyTorch's operators low_rank_cross_rnn and low_rank_cross_rnn_backward on a GPU.
#include "cell_binding.h"
#include "low_rank.h"

namespace dcrnn_fast::cuda {
namespace {

// Calls body with the arguments as the kernels read them.
template <typename Body>
void with_cell(const LowRankArguments& a, const CurrentDevice& current, const Body& body) {
  check(a.rank() <= most_columns, "private_projection: got rank ", a.rank(), ", expected at most ", most_columns, " on a GPU");
  with_type<BFloat16, Half>(a.x0, "x0", [&](auto zero) {
    using T = decltype(zero);
    LowRankCell<T> cell{};
    read_arguments(cell, a, current);
    cell.projection = {a.projection_banks(), data<const T>(a.shared_projection), data<const T>(a.private_projection)};
    body(cell, zero);
  });
}

LowRankCrossRnn run(LowRankArguments& a, bool saved) {
  prepare(a);
  const CurrentDevice current(a.x0);
  const Tensor out = allocated(a.x0, a.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = allocated(a.x0, a.activations_shape(saved), "x0, steps: the activations of all tasks");
  with_cell(a, current, [&](const auto& cell, auto zero) {
    using T = decltype(zero);
    low_rank_forward(cell, data<T>(out), a.return_states, data<T>(activations));
  });
  return {out, activations};
}

LowRankGradients run(LowRankArguments& a, const Tensor& grad, const Tensor& saved, int64_t grad_mask) {
  prepare(a);
  a.check_backward(grad, saved, grad_mask);
  const CurrentDevice current(a.x0);
  const Tensor dense_grad = dense(grad, "grad"), activations = dense(saved, "activations");
  const GradientTensors out(a, grad_mask);
  const bool projections = grad_mask & grad_projections, has_work = a.batch() && a.tasks();
  const Tensor shared_projection = new_gradient(a.x0, projections, has_work, with_trailing({}, a.shared_projection, 0));
  const Tensor private_projection = new_gradient(a.x0, projections, has_work, with_trailing({}, a.private_projection, 0));
  if (has_work)
    with_cell(a, current, [&](const auto& cell, auto zero) {
      using T = decltype(zero);
      low_rank_backward<T>(cell, data<const T>(dense_grad), a.return_states, data<const T>(activations),
                           {out.pointers<T>(grad_mask), projections, data<T>(shared_projection), data<T>(private_projection)});
    });
  return {out.x0,           out.shared_weight, out.shared_bias,   out.private_weight,
          out.private_bias, out.context,       shared_projection, private_projection};
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("low_rank_cross_rnn", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn<&dcrnn_fast::cuda::run>));
  m.impl("low_rank_cross_rnn_backward", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn_backward<&dcrnn_fast::cuda::run>));
}
