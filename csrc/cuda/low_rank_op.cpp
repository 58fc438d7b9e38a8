// PyTorch's operators low_rank_cross_rnn and low_rank_cross_rnn_backward on a GPU: memory, launches, and the matrix products for the
// gradients of the weights and of the projection.
#include "cross_rnn_op.h"
#include "low_rank.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename T>
LowRankProblem<T> problem_of(const LowRankArguments& a, const Current& current) {
  LowRankProblem<T> p{};
  read_arguments(p, a, current);
  p.shared_projection = data<const T>(a.shared_projection), p.private_projection = data<const T>(a.private_projection);
  p.projection_index = data<const int32_t>(a.projection_index), p.rank = static_cast<int>(a.rank());
  p.num_shared_projections = static_cast<int>(a.shared_projection.size(0));
  p.num_private_projections = static_cast<int>(a.private_projection.size(1));
  return p;
}

Tensor new_bytes(const Tensor& like, int64_t count) {
  return allocated(like, {count}, "shared_weight, shared_projection: all tasks' weights", ScalarType::Byte);
}

// The products for dW, [W, tasks, G, D, r]: da, transposed, times z, and dq times y, over the rows of all steps that share their weights.
template <typename T>
Tensor rank_products(const LowRankProblem<T>& p, const Tensor& like, const T* gradients, const T* activations) {
  const int64_t width = int64_t(p.gates) * p.dim, ranks = int64_t(p.gates) * p.rank, groups = p.weight_steps();
  const int64_t rows = p.steps / groups * p.batch, all = p.steps * p.batch;
  Tensor out = new_empty(like, {groups, p.tasks, width, p.rank});
  T* const products = data<T>(out);
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t gate = 0; gate < p.gates; ++gate)
      multiply(matrices(like, products + (group * p.tasks * width + gate * p.dim) * p.rank, {p.tasks, p.dim, p.rank},
                        {width * p.rank, p.rank, 1}),
               matrices(like, gradients + group * rows * width + gate * p.dim, {p.tasks, p.dim, rows}, {all * width, 1, width}),
               matrices(like, activations + group * rows * ranks + gate * p.rank, {p.tasks, rows, p.rank}, {all * ranks, ranks, 1}));
  return out;
}

template <typename T>
LowRankGradients gradients(const LowRankArguments& a, const Tensor& grad, Tensor activations, int64_t needs) {
  using A = accumulator<T>;
  const Current current(a.x0);
  const LowRankProblem<T> p = problem_of<T>(a, current);
  const bool has_work = p.batch && p.tasks, need_dx0 = needs & need_x0, need_dcontext = (needs & need_context) && p.columns;
  Tensor dx0 = new_gradient(a.x0, need_dx0, has_work, {p.batch, p.dim});
  Tensor dcontext = new_gradient(a.x0, needs & need_context, has_work, {p.steps, p.batch, p.columns});
  const Tensor* const inputs[6] = {&a.shared_weight, &a.shared_bias,       &a.private_weight,
                                   &a.private_bias,  &a.shared_projection, &a.private_projection};
  Tensor banks[6];
  for (int i = 0; i < 6; ++i)
    banks[i] = new_gradient(a.x0, needs & (i < 4 ? need_banks : need_projections), has_work, with_trailing({}, *inputs[i], 0));
  if (has_work) {
    const bool kept = activations.numel() > 0;
    if (!kept) activations = new_empty(a.x0, a.activations_shape());
    const Tensor states = new_empty(a.x0, {p.tasks, p.steps - 1, p.batch, p.dim});
    const Tensor step_gradients = new_empty(a.x0, {p.tasks, p.steps, p.batch, p.gates, p.dim}),
                 rank_gradients = new_empty(a.x0, a.activations_shape());
    const Tensor dx0_sums = new_empty(a.x0, {need_dx0 ? p.tasks : 0, p.batch, p.dim}, wide_type<T>);
    const Tensor dcontext_sums = new_empty(a.x0, {need_dcontext ? p.tasks : 0, p.steps, p.batch, p.columns}, wide_type<T>);
    const int tiles = low_rank_row_tiles(p);
    const Tensor sums = new_empty(a.x0, {p.tasks, p.steps, tiles, p.gates, p.dim}, wide_type<T>);
    const Tensor scratch = new_bytes(a.x0, low_rank_backward_bytes(p, kept));
    const LowRankWorkspace<T> w{data<T>(states),        data<T>(step_gradients), data<T>(rank_gradients), data<A>(dx0_sums),
                                data<A>(dcontext_sums), data<A>(sums),           data<void>(scratch)};
    check_cuda(low_rank_backward(p, data<const T>(grad), a.return_states, data<T>(activations), kept, w, data<T>(dx0), data<T>(dcontext),
                                 current.stream));
    const auto with_inverse = [&](const BankIndex& bank, const auto& body) {
      const Tensor memory = new_inverse(a.x0, bank);
      check_cuda(invert(bank, data<void>(memory), current.stream));
      body(inverse_in(data<void>(memory), bank));
    };
    if (needs & need_banks)
      with_inverse(p.bank(), [&](const InverseIndex& inverse) {
        const Tensor products = rank_products(p, a.x0, w.gradients, data<const T>(activations));
        check_cuda(sum_products(p.bank(), inverse, p.gates, p.weight_steps(), p.weight_steps(), p.rank, data<const T>(products),
                                data<T>(banks[0]), data<T>(banks[2]), current.stream));
        check_cuda(sum_tiles(p.bank(), inverse, p.gates, p.weight_steps(), p.steps, tiles, data<const A>(sums), data<T>(banks[1]),
                             data<T>(banks[3]), current.stream));
      });
    if (needs & need_projections)
      with_inverse(p.projection_bank(), [&](const InverseIndex& inverse) {
        const Tensor products = input_products(p, a.x0, w.states, w.rank_gradients, int64_t(p.gates) * p.rank);
        check_cuda(sum_products(p.projection_bank(), inverse, p.gates, p.weight_steps(), step_groups(p), p.columns + p.dim,
                                data<const T>(products), data<T>(banks[4]), data<T>(banks[5]), current.stream));
      });
  }
  return {dx0, banks[0], banks[1], banks[2], banks[3], dcontext, banks[4], banks[5]};
}

void check_and_prepare(LowRankArguments& a) {
  prepare(a);
  check(a.rank() <= most_columns, "projection_index: got rank ", a.rank(), ", expected at most ", most_columns, " on a GPU");
}

LowRankCrossRnn run(LowRankArguments& a, bool keep) {
  check_and_prepare(a);
  const Current current(a.x0);
  const Tensor out = allocated(a.x0, a.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = allocated(a.x0, a.activations_shape(keep), "x0, steps: the activations of all tasks");
  with_type<BFloat16, Half>(a.x0, "x0", [&](auto zero) {
    using T = decltype(zero);
    const LowRankProblem<T> p = problem_of<T>(a, current);
    const Tensor scratch = new_bytes(a.x0, low_rank_forward_bytes(p, keep));
    check_cuda(low_rank_forward(p, data<T>(out), a.return_states, data<T>(activations), data<void>(scratch), current.stream));
  });
  return {out, activations};
}

LowRankGradients run(LowRankArguments& a, const Tensor& grad, const Tensor& activations, int64_t needs) {
  check_and_prepare(a);
  a.check_backward(grad, activations, needs);
  return with_type<BFloat16, Half>(
      a.x0, "x0", [&](auto zero) { return gradients<decltype(zero)>(a, dense(grad, "grad"), dense(activations, "activations"), needs); });
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("low_rank_cross_rnn", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn<&dcrnn_fast::cuda::run>));
  m.impl("low_rank_cross_rnn_backward", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn_backward<&dcrnn_fast::cuda::run>));
}
