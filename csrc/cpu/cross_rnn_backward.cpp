// cross_rnn's backward on the CPU. It works on one chunk of rows at a time, which bounds the scratch memory, in two phases:
// backward_walk.h, with the tiles side by side on the threads, then backward_weights.h.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../text.h"
#include "backward_walk.h"
#include "backward_weights.h"
#include "low_rank_backward.h"

namespace dcrnn_fast::cpu {
namespace {

using torch::stable::new_empty;
using torch::stable::new_zeros;

Tensor new_gradient(const Tensor& like, bool wanted, bool has_work, const std::vector<int64_t>& shape) {
  if (!wanted) return new_empty(like, {0});
  if (!has_work) return with_memory([&] { return new_zeros(like, shape); }, "a gradient");
  return allocated(like, shape, "a gradient");
}

// A gradient's tensor, and the memory in which it is summed: the tensor's own where the types are the same.
template <typename T>
struct Gradient {
  using A = accumulator<T>;
  Tensor tensor;
  Buffer<A> wide;
  A* data = nullptr;

  Gradient(const Tensor& like, bool wanted, bool has_work, const std::vector<int64_t>& shape)
      : tensor(new_gradient(like, wanted, has_work, shape)) {
    if (!wanted || !has_work) return;
    if constexpr (is_low<T>)
      data = (wide = Buffer<A>(tensor.numel())).get();
    else
      data = static_cast<A*>(tensor.mutable_data_ptr());
  }

  void finish() {
    if constexpr (is_low<T>)
      if (data) kernels<T>().narrow(data, static_cast<T*>(tensor.mutable_data_ptr()), tensor.numel());
  }
};

template <typename T>
void run(BackwardChunk<T>& chunk, const T* grad, bool return_states, const T* activations) {
  const BackwardWeights<T> weights(chunk);
  std::vector<std::optional<BackwardWalk<T>>> walks(chunk.tiles_each);  // one a thread, at the first tile of the thread's share
  for (int64_t first = 0; first < chunk.tiles.count; first += chunk.tiles_each) {
    const int64_t last = std::min(first + chunk.tiles_each, chunk.tiles.count);
    chunk.row = chunk.tiles.begin(first), chunk.rows = chunk.tiles.begin(last) - chunk.row;
    torch::stable::parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
      std::optional<BackwardWalk<T>>& walk = walks[begin - first];
      if (!walk) walk.emplace(chunk, grad, return_states, activations);
      for (int64_t i = begin; i < end && !chunk.p.interruption.came(); ++i) walk->run(i, i - first);
    });
    chunk.p.interruption.raise();
    if (!chunk.out.weight) continue;
    weights.add_weights();
    chunk.p.interruption.raise();
    for (int64_t i = first; i < last; ++i) weights.add_biases(chunk.sums(i - first), i > 0);
  }
}

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Outputs backward(const Arguments& arguments, const Tensor& grad, const Tensor& activations, bool return_states, int64_t needs) {
  using A = accumulator<T>;
  const Tensor& like = arguments.x0;
  const Problem<T> p(arguments);
  const bool weights = needs & need_banks, has_work = p.batch && p.tasks;
  Gradient<T> dx0(like, needs & need_x0, has_work, {p.batch, p.dim});
  Gradient<T> dcontext(like, needs & need_context, has_work, {p.steps, p.batch, p.context});
  Tensor banks[4];
  const Tensor* const inputs[4] = {&arguments.shared_weight, &arguments.shared_bias, &arguments.private_weight, &arguments.private_bias};
  for (int i = 0; i < 4; ++i) banks[i] = new_gradient(like, weights, has_work, with_trailing({}, *inputs[i], 0));
  if (has_work) {
    const int64_t units = p.tasks * p.bank.rows * p.gates;
    const auto data = [&](int i) { return static_cast<T*>(banks[i].mutable_data_ptr()); };
    Buffer<A> dweight, dbias;
    Gradients<A> out{dx0.data, p.context ? dcontext.data : nullptr, nullptr, nullptr};
    const bool reduce = weights && (is_low<T> || !reads_in_order(p.bank));
    if (reduce) {
      dweight = Buffer<A>(units * p.columns), dbias = Buffer<A>(units);
      out.weight = dweight.get(), out.bias = dbias.get();
    } else if constexpr (!is_low<T>) {
      const int bank = p.bank.num_shared ? 0 : 2;
      if (weights) out.weight = data(bank), out.bias = data(bank + 1);
    }
    BackwardChunk<T> chunk(p, out);
    run(chunk, static_cast<const T*>(grad.const_data_ptr()), return_states,
        activations.numel() ? static_cast<const T*>(activations.const_data_ptr()) : nullptr);
    if (reduce) {
      const Readers readers(p.bank);
      reduce_rows(p.bank, readers, dweight.get(), data(0), data(2), p.gates * p.columns);
      reduce_rows(p.bank, readers, dbias.get(), data(1), data(3), p.gates);
    }
  }
  dx0.finish();
  dcontext.finish();
  return {dx0.tensor, banks[0], banks[1], banks[2], banks[3], dcontext.tensor, new_empty(like, {0}), new_empty(like, {0})};
}

template <typename T>
Outputs of_low_rank(const Arguments& arguments, const Tensor& grad, const Tensor& activations, bool return_states, int64_t needs) {
  const Tensor& like = arguments.x0;
  const bool has_work = arguments.batch() && arguments.tasks(), banks = needs & need_banks, projections = needs & need_projections;
  const auto gradient = [&](const Tensor& input, bool wanted) { return new_gradient(like, wanted, has_work, with_trailing({}, input, 0)); };
  const Outputs out{gradient(like, needs & need_x0),
                    gradient(arguments.shared_weight, banks),
                    gradient(arguments.shared_bias, banks),
                    gradient(arguments.private_weight, banks),
                    gradient(arguments.private_bias, banks),
                    new_gradient(like, needs & need_context, has_work, {arguments.steps, arguments.batch(), arguments.context_columns()}),
                    gradient(*arguments.shared_projection, projections),
                    gradient(*arguments.private_projection, projections)};
  if (!has_work) return out;
  const auto data = [](const Tensor& tensor, bool wanted) { return wanted ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr; };
  const auto& [x0, shared_weight, shared_bias, private_weight, private_bias, context, shared_projection, private_projection] = out;
  const LowRankGradients<T> to{banks,
                               projections,
                               data(x0, needs & need_x0),
                               data(context, (needs & need_context) && arguments.context),
                               data(shared_weight, banks),
                               data(shared_bias, banks),
                               data(private_weight, banks),
                               data(private_bias, banks),
                               data(shared_projection, projections),
                               data(private_projection, projections)};
  low_rank_backward(arguments, static_cast<const T*>(grad.const_data_ptr()),
                    activations.numel() ? static_cast<const T*>(activations.const_data_ptr()) : nullptr, return_states, to);
  return out;
}

Outputs cross_rnn_backward(Tensor grad, Tensor states, Tensor activations, Tensor x0, Tensor shared_weight, Tensor shared_bias,
                           Tensor private_weight, Tensor private_bias, Tensor index, int64_t steps, Text cell,
                           std::optional<Tensor> context, std::optional<Tensor> shared_projection, std::optional<Tensor> private_projection,
                           std::optional<Tensor> projection_index, bool return_states, int64_t needs, bool /*allow_tf32*/) {
  Arguments arguments{x0,    shared_weight, shared_bias, private_weight,    private_bias,       index,
                      steps, cell,          context,     shared_projection, private_projection, projection_index};
  prepare(arguments);
  arguments.check_backward(grad, states, activations, return_states, needs, context.has_value());
  grad = dense(grad, "grad"), activations = dense(activations, "activations");
  return with_type(x0, "x0", [&](auto zero) {
    using T = decltype(zero);
    return arguments.low_rank() ? of_low_rank<T>(arguments, grad, activations, return_states, needs)
                                : backward<T>(arguments, grad, activations, return_states, needs);
  });
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cpu::cross_rnn_backward)); }
