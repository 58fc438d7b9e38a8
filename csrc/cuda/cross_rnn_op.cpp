// PyTorch's operators cross_rnn and cross_rnn_backward on a GPU: memory, launches, and the matrix products for the weights' gradients.
#include "cross_rnn_op.h"

#include "../text.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename T>
Problem<T> problem_of(const Arguments& a, const Current& current, bool allow_tf32) {
  Problem<T> p{};
  read_arguments(p, a, current, allow_tf32);
  return p;
}

template <typename T>
void run_forward(const Problem<T>& p, const Tensor& like, const Tensor& out, bool return_states, const Tensor& activations,
                 cudaStream_t stream) {
  const Tensor scratch = new_empty(like, {forward_scratch(p, return_states)});
  check_cuda(forward(p, data<T>(out), return_states, data<T>(activations), data<T>(scratch), stream));
}

std::tuple<Tensor, Tensor, Tensor> cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight,
                                             Tensor private_bias, Tensor index, int64_t steps, Text cell, std::optional<Tensor> context,
                                             std::optional<Tensor> shared_projection, std::optional<Tensor> private_projection,
                                             std::optional<Tensor> projection_index, bool return_states, int64_t keep, bool allow_tf32) {
  Arguments a{x0,    shared_weight, shared_bias, private_weight,    private_bias,       index,
              steps, cell,          context,     shared_projection, private_projection, projection_index};
  prepare(a);
  check_keep(keep);
  if (a.low_rank()) return cross_rnn_low_rank(a, return_states, keep, allow_tf32);
  const Current current(a.x0);
  Tensor out = allocated(a.x0, a.out_shape(return_states), "x0, steps: the states of all tasks");
  Tensor activations = allocated(a.x0, a.activations_shape(keep), "x0, steps: the activations of all tasks");
  with_type(x0, "x0", [&](auto zero) {
    run_forward(problem_of<decltype(zero)>(a, current, allow_tf32), a.x0, out, return_states, activations, current.stream);
  });
  return {out, new_empty(a.x0, {0}), activations};
}

template <typename T>
Outputs run_backward(const Arguments& a, const Tensor& grad, Tensor activations, bool return_states, int64_t needs, bool allow_tf32) {
  const Current current(a.x0);
  const Problem<T> p = problem_of<T>(a, current, allow_tf32);
  const bool has_work = p.batch && p.tasks;
  Tensor dx0 = new_gradient(a, {p.batch, p.dim}, needs & need_x0), banks[4];
  Tensor dcontext = new_gradient(a, {p.steps, p.batch, p.columns}, needs & need_context);
  const Tensor* const inputs[4] = {&a.shared_weight, &a.shared_bias, &a.private_weight, &a.private_bias};
  for (int i = 0; i < 4; ++i) banks[i] = new_gradient(a, with_trailing({}, *inputs[i], 0), needs & need_banks);
  if (has_work) {
    if (activations.numel() == 0) {
      activations = new_empty(a.x0, a.activations_shape(keep_activations));
      run_forward(p, a.x0, new_empty(a.x0, a.out_shape(false)), false, activations, current.stream);
    }
    const int64_t tiles = backward_row_tiles(p);
    const Tensor states = new_empty(a.x0, {p.tasks, p.steps - 1, p.batch, p.dim}), gradients = empty_like(activations);
    const Tensor d = new_empty(a.x0, {p.steps > 1 ? p.tasks : 0, p.batch, p.dim});
    const Tensor dx0_sums = new_empty(a.x0, {needs & need_x0 ? p.tasks : 0, p.batch, p.dim}, wide_type<T>);
    const Tensor sums = new_empty(a.x0, {p.tasks, p.steps, tiles, p.gates, p.dim}, wide_type<T>);
    using A = accumulator<T>;
    const Workspace<T> workspace{data<T>(states), data<T>(gradients), data<T>(d), data<A>(dx0_sums), data<A>(sums)};
    check_cuda(backward(p, data<const T>(grad), return_states, data<const T>(activations), workspace, data<T>(dx0), data<T>(dcontext),
                        current.stream));
    if (needs & need_banks) {
      const Tensor products = input_products(p, a.x0, workspace.states, workspace.gradients, int64_t(p.gates) * p.dim);
      const Tensor memory = new_inverse(a.x0, p.bank());
      const InverseIndex inverse = inverse_in(data<void>(memory), p.bank());
      check_cuda(invert(p.bank(), data<void>(memory), current.stream));
      check_cuda(sum_weights(p, inverse, data<const T>(products), data<T>(banks[0]), data<T>(banks[2]), current.stream));
      check_cuda(sum_biases(p, inverse, data<const A>(sums), data<T>(banks[1]), data<T>(banks[3]), current.stream));
    }
  }
  return {dx0, banks[0], banks[1], banks[2], banks[3], dcontext, new_empty(a.x0, {0}), new_empty(a.x0, {0})};
}

Outputs cross_rnn_backward(Tensor grad, Tensor states, Tensor activations, Tensor x0, Tensor shared_weight, Tensor shared_bias,
                           Tensor private_weight, Tensor private_bias, Tensor index, int64_t steps, Text cell,
                           std::optional<Tensor> context, std::optional<Tensor> shared_projection, std::optional<Tensor> private_projection,
                           std::optional<Tensor> projection_index, bool return_states, int64_t needs, bool allow_tf32) {
  Arguments a{x0,    shared_weight, shared_bias, private_weight,    private_bias,       index,
              steps, cell,          context,     shared_projection, private_projection, projection_index};
  prepare(a);
  a.check_backward(grad, states, activations, return_states, needs, context.has_value());
  grad = dense(grad, "grad"), activations = dense(activations, "activations");
  if (a.low_rank()) return cross_rnn_low_rank_backward(a, grad, activations, return_states, needs, allow_tf32);
  return with_type(x0, "x0",
                   [&](auto zero) { return run_backward<decltype(zero)>(a, grad, activations, return_states, needs, allow_tf32); });
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cuda::cross_rnn));
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cuda::cross_rnn_backward));
}
