// cross_rnn's backward on the CPU. It works on one chunk of rows at a time, which bounds the scratch memory, in two phases:
// cross_rnn_backward_walk.h, with the tiles side by side on the threads, then cross_rnn_backward_weights.h.
#include <torch/csrc/stable/library.h>

#include "cross_rnn_backward_walk.h"
#include "cross_rnn_backward_weights.h"
#include "results.h"

namespace dcrnn_fast::cpu {
namespace {

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
void walk(BackwardChunk<T>& chunk, const T* grad, bool return_states, const T* activations) {
  const BackwardWeights<T> weights(chunk);
  std::vector<std::optional<BackwardWalk<T>>> walks(chunk.tiles_each);  // one a thread, at the first tile of the thread's share
  for (int64_t first = 0; first < chunk.tiles.count; first += chunk.tiles_each) {
    const int64_t last = std::min(first + chunk.tiles_each, chunk.tiles.count);
    chunk.row = chunk.tiles.begin(first), chunk.rows = chunk.tiles.begin(last) - chunk.row;
    parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
      std::optional<BackwardWalk<T>>& own = walks[begin - first];
      if (!own) own.emplace(chunk, grad, return_states, activations);
      for (int64_t i = begin; i < end; ++i) own->run(i, i - first);
    });
    if (!chunk.out.bias) continue;
    weights.add_weights();
    for (int64_t i = first; i < last; ++i) weights.add_biases(chunk.sums(i - first));
  }
}

// The biases' gradients from those of each task [tasks, W, D, G]: a shared one is the sum over the tasks.
template <typename T>
void write_biases(const Recurrence<T>& p, const double* from, T* shared, T* own) {
  const int64_t of_shared = p.banks.shared * p.gates, of_own = p.banks.own * p.gates;
  for (int64_t step = 0; step < p.weight_steps; ++step) {
    for (int64_t i = 0; i < of_shared; ++i) {
      double sum = 0;
      for (int64_t task = 0; task < p.tasks; ++task) sum += from[(task * p.weight_steps + step) * p.dim * p.gates + i];
      shared[step * of_shared + i] = T(sum);
    }
    for (int64_t task = 0; task < p.tasks; ++task) {
      const int64_t block = task * p.weight_steps + step;
      for (int64_t i = 0; i < of_own; ++i) own[block * of_own + i] = T(from[block * p.dim * p.gates + of_shared + i]);
    }
  }
}

template <typename T>
CrossRnnGradients backward(const CellArguments& arguments, const Tensor& grad, const Tensor& activations, int64_t grad_mask) {
  const Tensor& like = arguments.x0;
  const Recurrence<T> p(arguments, activations.numel() ? Passes::backward : Passes::both);
  const bool weights = grad_mask & grad_weights, has_work = p.batch && p.tasks;
  const auto gradient = [&](const Tensor& input) { return Gradient<T>(like, weights, has_work, with_trailing({}, input, 0)); };
  Gradient<T> dx0(like, grad_mask & grad_x0, has_work, {p.batch, p.dim});
  Gradient<T> dcontext(like, grad_mask & grad_context, has_work, {p.steps, p.batch, p.context});
  Gradient<T> dshared = gradient(arguments.shared_weight), dprivate = gradient(arguments.private_weight);
  const Tensor dshared_bias = new_gradient(like, weights, has_work, with_trailing({}, arguments.shared_bias, 0));
  const Tensor dprivate_bias = new_gradient(like, weights, has_work, with_trailing({}, arguments.private_bias, 0));
  if (has_work) {
    const int64_t units = p.tasks * p.weight_steps * p.dim * p.gates;
    const Buffer<double> dbias(weights ? units : 0);
    if (weights) std::fill_n(dbias.get(), units, 0.0);
    BackwardChunk<T> chunk(p, {dx0.data, p.context ? dcontext.data : nullptr, dshared.data, dprivate.data, dbias.get()});
    walk(chunk, static_cast<const T*>(grad.const_data_ptr()), arguments.return_states,
         activations.numel() ? static_cast<const T*>(activations.const_data_ptr()) : nullptr);
    if (weights)
      write_biases(p, dbias.get(), static_cast<T*>(dshared_bias.mutable_data_ptr()), static_cast<T*>(dprivate_bias.mutable_data_ptr()));
  }
  for (Gradient<T>* const one : {&dx0, &dcontext, &dshared, &dprivate}) one->finish();
  return {dx0.tensor, dshared.tensor, dshared_bias, dprivate.tensor, dprivate_bias, dcontext.tensor};
}

CrossRnnGradients run(CellArguments& arguments, const Tensor& grad, const Tensor& states, const Tensor& activations, int64_t grad_mask) {
  arguments.prepare();
  arguments.check_backward(grad, states, activations, grad_mask);
  const ScalarType dtype = arguments.x0.scalar_type();
  if (computes_in_float(arguments, Passes::backward)) widen(arguments);
  const auto given = [&](const Tensor& tensor, const char* name) { return converted(dense(tensor, name), arguments.x0.scalar_type()); };
  const CrossRnnGradients found = with_type<BFloat16, Half>(arguments.x0, "x0", [&](auto zero) {
    return backward<decltype(zero)>(arguments, given(grad, "grad"), given(activations, "activations"), grad_mask);
  });
  return std::apply([&](const auto&... gradient) { return CrossRnnGradients{converted(gradient, dtype)...}; }, found);
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) {
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cross_rnn_backward<&dcrnn_fast::cpu::run>));
}
