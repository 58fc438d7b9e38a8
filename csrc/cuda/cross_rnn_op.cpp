// PyTorch's operators cross_rnn and cross_rnn_backward on a GPU: memory, launches, and the matrix products for the weights' gradients.
#include "cross_rnn_op.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename T>
Problem<T> problem_of(const Arguments& a, const Current& current) {
  Problem<T> p{};
  read_arguments(p, a, current);
  return p;
}

template <typename T>
void run_forward(const Problem<T>& p, const Tensor& like, const Tensor& out, bool return_states, const Tensor& activations,
                 cudaStream_t stream) {
  const Tensor scratch = new_empty(like, {forward_scratch(p, return_states)});
  check_cuda(forward(p, data<T>(out), return_states, data<T>(activations), data<T>(scratch), stream));
}

CrossRnn run(Arguments& a, int64_t keep) {
  prepare(a);
  check_keep(keep);
  const Current current(a.x0);
  const Tensor out = allocated(a.x0, a.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = allocated(a.x0, a.activations_shape(keep), "x0, steps: the activations of all tasks");
  with_type<BFloat16, Half>(a.x0, "x0", [&](auto zero) {
    run_forward(problem_of<decltype(zero)>(a, current), a.x0, out, a.return_states, activations, current.stream);
  });
  return {out, new_empty(a.x0, {0}), activations};
}

template <typename T>
CrossRnnGradients gradients(const Arguments& a, const Tensor& grad, Tensor activations, int64_t needs) {
  const Current current(a.x0);
  const Problem<T> p = problem_of<T>(a, current);
  const bool has_work = p.batch && p.tasks;
  Tensor dx0 = new_gradient(a.x0, needs & need_x0, has_work, {p.batch, p.dim}), banks[4];
  Tensor dcontext = new_gradient(a.x0, needs & need_context, has_work, {p.steps, p.batch, p.columns});
  const Tensor* const inputs[4] = {&a.shared_weight, &a.shared_bias, &a.private_weight, &a.private_bias};
  for (int i = 0; i < 4; ++i) banks[i] = new_gradient(a.x0, needs & need_banks, has_work, with_trailing({}, *inputs[i], 0));
  if (has_work) {
    if (activations.numel() == 0) {
      activations = new_empty(a.x0, a.activations_shape());
      run_forward(p, a.x0, new_empty(a.x0, {p.tasks, p.batch, p.dim}), false, activations, current.stream);
    }
    const int tiles = backward_row_tiles(p);
    const Tensor states = new_empty(a.x0, {p.tasks, p.steps - 1, p.batch, p.dim}), step_gradients = empty_like(activations);
    const Tensor d = new_empty(a.x0, {p.steps > 1 ? p.tasks : 0, p.batch, p.dim});
    const Tensor dx0_sums = new_empty(a.x0, {needs & need_x0 ? p.tasks : 0, p.batch, p.dim}, wide_type<T>);
    const Tensor sums = new_empty(a.x0, {p.tasks, p.steps, tiles, p.gates, p.dim}, wide_type<T>);
    using A = accumulator<T>;
    const Workspace<T> workspace{data<T>(states), data<T>(step_gradients), data<T>(d), data<A>(dx0_sums), data<A>(sums)};
    check_cuda(backward(p, data<const T>(grad), a.return_states, data<const T>(activations), workspace, data<T>(dx0), data<T>(dcontext),
                        current.stream));
    if (needs & need_banks) {
      const Tensor products = input_products(p, a.x0, workspace.states, workspace.gradients, int64_t(p.gates) * p.dim);
      const Tensor memory = new_inverse(a.x0, p.bank());
      const InverseIndex inverse = inverse_in(data<void>(memory), p.bank());
      check_cuda(invert(p.bank(), data<void>(memory), current.stream));
      check_cuda(sum_products(p.bank(), inverse, p.gates, p.weight_steps(), step_groups(p), p.columns + p.dim, data<const T>(products),
                              data<T>(banks[0]), data<T>(banks[2]), current.stream));
      check_cuda(sum_tiles(p.bank(), inverse, p.gates, p.weight_steps(), p.steps, tiles, data<const A>(sums), data<T>(banks[1]),
                           data<T>(banks[3]), current.stream));
    }
  }
  return {dx0, banks[0], banks[1], banks[2], banks[3], dcontext};
}

CrossRnnGradients run(Arguments& a, const Tensor& grad, const Tensor& states, const Tensor& activations, int64_t needs) {
  prepare(a);
  a.check_backward(grad, states, activations, needs);
  return with_type<BFloat16, Half>(
      a.x0, "x0", [&](auto zero) { return gradients<decltype(zero)>(a, dense(grad, "grad"), dense(activations, "activations"), needs); });
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cross_rnn<&dcrnn_fast::cuda::run>));
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cross_rnn_backward<&dcrnn_fast::cuda::run>));
}
