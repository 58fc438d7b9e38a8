// PyTorch's operators cross_rnn and cross_rnn_backward on a GPU: memory, launches, and the matrix products for the weights' gradients.
#include <array>
#include <tuple>

#include "binding.h"
#include "kernel_override.h"

namespace dcrnn_fast::cuda {
namespace {

using torch::stable::empty_like;
using torch::stable::from_blob;
using torch::stable::new_empty;
using torch::stable::new_zeros;

template <typename T>
constexpr ScalarType wide_type = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

// Kernels round the number of columns up to whole tiles in 32 bits.
constexpr int64_t most_columns = int64_t{1} << 30;

void prepare(Arguments& a) {
  a.prepare(kernel_device());
  a.x0 = dense(a.x0, "x0");
  check_grid(a.tasks(), "index: tasks");
  check(a.columns() <= most_columns, "shared_weight: got ", a.columns(), " columns, C + D, expected at most ", most_columns, " on a GPU");
}

template <typename T>
Problem<T> problem_of(const Arguments& a, const Current& current, bool allow_tf32) {
  Problem<T> p{};
  p.x0 = data<const T>(a.x0), p.context = a.context ? data<const T>(*a.context) : nullptr;
  p.shared_weight = data<const T>(a.shared_weight), p.shared_bias = data<const T>(a.shared_bias);
  p.private_weight = data<const T>(a.private_weight), p.private_bias = data<const T>(a.private_bias);
  p.index = data<const int32_t>(a.index);
  const auto number = [](int64_t size) { return static_cast<int>(size); };
  p.batch = a.batch(), p.tasks = number(a.tasks()), p.dim = number(a.dim()), p.columns = number(a.context_columns());
  p.gates = number(a.gates()), p.steps = number(a.steps), p.rows = number(a.index.size(1));
  p.num_shared = number(a.shared_weight.size(0)), p.num_private = number(a.private_weight.size(1));
  p.tf32 = allow_tf32, p.device = current.device, p.schedule = schedule_override, p.tiles = tiles_override;
  return p;
}

template <typename T>
void run_forward(const Problem<T>& p, const Tensor& like, const Tensor& out, bool return_states, const Tensor& activations,
                 cudaStream_t stream) {
  const Tensor scratch = new_empty(like, {forward_scratch(p, return_states)});
  check_cuda(forward(p, data<T>(out), return_states, data<T>(activations), data<T>(scratch), stream));
}

std::tuple<Tensor, Tensor, Tensor> cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight,
                                             Tensor private_bias, Tensor index, int64_t steps, std::string cell,
                                             std::optional<Tensor> context, std::optional<Tensor> shared_projection,
                                             std::optional<Tensor> private_projection, std::optional<Tensor> projection_index,
                                             bool return_states, int64_t keep, bool allow_tf32) {
  Arguments a{x0,    shared_weight, shared_bias, private_weight,    private_bias,       index,
              steps, cell,          context,     shared_projection, private_projection, projection_index};
  prepare(a);
  check(!a.low_rank(), "projection_index: this backend has no kernels for the low-rank cell yet");
  check_keep(keep);
  const Current current(a.x0);
  Tensor out = allocated(a.x0, a.out_shape(return_states), "x0, steps: the states of all tasks");
  Tensor activations = allocated(a.x0, a.activations_shape(keep), "x0, steps: the activations of all tasks");
  with_type(x0, "x0", [&](auto zero) {
    run_forward(problem_of<decltype(zero)>(a, current, allow_tf32), a.x0, out, return_states, activations, current.stream);
  });
  return {out, new_empty(a.x0, {0}), activations};
}

// The products of each group of steps (see step_groups), [groups, tasks, G * D, K]: da|dq, transposed, times the context and the state that
// these steps multiplied by the weights.
template <typename T>
Tensor weight_products(const Problem<T>& p, const Tensor& like, const Workspace<T>& w) {
  const int64_t groups = step_groups(p), width = int64_t(p.gates) * p.dim, inner = p.columns + p.dim;
  Tensor out = new_empty(like, {groups, p.tasks, width, inner});
  T* const products = data<T>(out);
  // [tasks, rows, columns] in memory that the tensor does not own
  const auto matrices = [&](const T* values, std::array<int64_t, 3> sizes, std::array<int64_t, 3> strides) {
    return from_blob(const_cast<T*>(values), sizes, strides, like.device(), like.scalar_type());
  };
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t steps = p.weight_steps() > 1 || group == 0 ? 1 : p.steps - 1, rows = steps * p.batch, before = group * p.batch;
    const Tensor left = matrices(w.gradients + before * width, {p.tasks, width, rows}, {p.steps * p.batch * width, 1, width});
    T* const group_products = products + group * p.tasks * width * inner;
    const auto add_columns = [&](const T* right, int64_t columns, int64_t task_stride, int64_t column) {
      multiply(matrices(group_products + column, {p.tasks, width, columns}, {width * inner, inner, 1}), left,
               matrices(right, {p.tasks, rows, columns}, {task_stride, columns, 1}));
    };
    if (p.columns) add_columns(p.context + before * p.columns, p.columns, 0, 0);
    if (group == 0)
      add_columns(p.x0, p.dim, 0, p.columns);
    else
      add_columns(w.states + (group - 1) * p.states(), p.dim, (p.steps - 1) * p.states(), p.columns);
  }
  return out;
}

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Outputs run_backward(const Arguments& a, const Tensor& grad, Tensor activations, bool return_states, int64_t needs, bool allow_tf32) {
  const Current current(a.x0);
  const Problem<T> p = problem_of<T>(a, current, allow_tf32);
  const bool has_work = p.batch && p.tasks;
  const auto gradient = [&](const std::vector<int64_t>& shape, bool wanted) {
    if (!wanted) return new_empty(a.x0, {0});
    return has_work ? new_empty(a.x0, shape) : new_zeros(a.x0, shape);
  };
  Tensor dx0 = gradient({p.batch, p.dim}, needs & need_x0), banks[4];
  Tensor dcontext = gradient({p.steps, p.batch, p.columns}, needs & need_context);
  const Tensor* const inputs[4] = {&a.shared_weight, &a.shared_bias, &a.private_weight, &a.private_bias};
  for (int i = 0; i < 4; ++i) banks[i] = gradient(with_trailing({}, *inputs[i], 0), needs & need_banks);
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
      const Tensor products = weight_products(p, a.x0, workspace), memory = new_inverse(a.x0, p.bank());
      const InverseIndex inverse = inverse_in(data<void>(memory), p.bank());
      check_cuda(invert(p.bank(), data<void>(memory), current.stream));
      check_cuda(sum_weights(p, inverse, data<const T>(products), data<T>(banks[0]), data<T>(banks[2]), current.stream));
      check_cuda(sum_biases(p, inverse, data<const A>(sums), data<T>(banks[1]), data<T>(banks[3]), current.stream));
    }
  }
  return {dx0, banks[0], banks[1], banks[2], banks[3], dcontext, new_empty(a.x0, {0}), new_empty(a.x0, {0})};
}

Outputs cross_rnn_backward(Tensor grad, Tensor states, Tensor activations, Tensor x0, Tensor shared_weight, Tensor shared_bias,
                           Tensor private_weight, Tensor private_bias, Tensor index, int64_t steps, std::string cell,
                           std::optional<Tensor> context, std::optional<Tensor> shared_projection, std::optional<Tensor> private_projection,
                           std::optional<Tensor> projection_index, bool return_states, int64_t needs, bool allow_tf32) {
  Arguments a{x0,    shared_weight, shared_bias, private_weight,    private_bias,       index,
              steps, cell,          context,     shared_projection, private_projection, projection_index};
  prepare(a);
  check(!a.low_rank(), "projection_index: this backend has no kernels for the low-rank cell yet");
  a.check_backward(grad, states, activations, return_states, needs, context.has_value());
  grad = dense(grad, "grad"), activations = dense(activations, "activations");
  return with_type(x0, "x0",
                   [&](auto zero) { return run_backward<decltype(zero)>(a, grad, activations, return_states, needs, allow_tf32); });
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cuda::cross_rnn));
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cuda::cross_rnn_backward));
}
