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

// The gradients of both banks from those of each task [tasks, W, D, size]: a shared row's is the sum over the tasks.
template <typename T, typename Sum>
void write_banks(const Recurrence<T>& p, const Sum* from, int64_t size, const Tensor& to_shared, const Tensor& to_own) {
  T *const shared = static_cast<T*>(to_shared.mutable_data_ptr()), *const own = static_cast<T*>(to_own.mutable_data_ptr());
  const int64_t rows = p.banks.shared + p.tasks * p.banks.own, of_tasks = p.weight_steps * p.dim * size;
  parallel_for(0, p.weight_steps * rows, grain(size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t step = i / rows, row = i % rows;
      const bool all = row < p.banks.shared;  // whether it is every task's
      const int64_t task = all ? 0 : (row - p.banks.shared) / p.banks.own, unit = all ? row : row - task * p.banks.own;
      const Sum* const first = from + task * of_tasks + (step * p.dim + unit) * size;
      T* const to = all ? shared + (step * p.banks.shared + unit) * size
                        : own + ((task * p.weight_steps + step) * p.banks.own + unit - p.banks.shared) * size;
      constexpr int64_t few = 256;
      Sum sums[few];
      for (int64_t start = 0; start < size; start += few) {
        const int64_t count = std::min(few, size - start);
        std::copy_n(first + start, count, sums);
        for (int64_t other = 1; all && other < p.tasks; ++other)
          for (int64_t n = 0; n < count; ++n) sums[n] += first[other * of_tasks + start + n];
        for (int64_t n = 0; n < count; ++n) to[start + n] = T(sums[n]);
      }
    }
  });
}

template <typename T>
CrossRnnGradients backward(const CellArguments& arguments, const Tensor& grad, const Tensor& activations, int64_t grad_mask) {
  using A = accumulator<T>;
  const Tensor& like = arguments.x0;
  const Recurrence<T> p(arguments, activations.numel() ? Passes::backward : Passes::both);
  const bool weights = grad_mask & grad_weights, has_work = p.batch && p.tasks;
  const auto gradient = [&](const Tensor& input) { return new_gradient(like, weights, has_work, with_trailing({}, input, 0)); };
  Gradient<T> dx0(like, grad_mask & grad_x0, has_work, {p.batch, p.dim});
  Gradient<T> dcontext(like, grad_mask & grad_context, has_work, {p.steps, p.batch, p.context});
  const Tensor dshared = gradient(arguments.shared_weight), dprivate = gradient(arguments.private_weight);
  const Tensor dshared_bias = gradient(arguments.shared_bias), dprivate_bias = gradient(arguments.private_bias);
  if (has_work) {
    const int64_t units = p.tasks * p.weight_steps * p.dim * p.gates;
    const Buffer<double> dbias(weights ? units : 0);
    const Buffer<A> dweight(weights && is_low<T> ? units * p.columns : 0);
    if (weights) std::fill_n(dbias.get(), units, 0.0);
    const auto data = [&](const Tensor& tensor) { return weights && !is_low<T> ? static_cast<A*>(tensor.mutable_data_ptr()) : nullptr; };
    BackwardChunk<T> chunk(p, {dx0.data, p.context ? dcontext.data : nullptr, data(dshared), data(dprivate), dweight.get(), dbias.get()});
    walk(chunk, static_cast<const T*>(grad.const_data_ptr()), arguments.return_states,
         activations.numel() ? static_cast<const T*>(activations.const_data_ptr()) : nullptr);
    if (weights) write_banks(p, dbias.get(), p.gates, dshared_bias, dprivate_bias);
    if (weights && is_low<T>) write_banks(p, dweight.get(), p.gates * p.columns, dshared, dprivate);
  }
  dx0.finish();
  dcontext.finish();
  return {dx0.tensor, dshared, dshared_bias, dprivate, dprivate_bias, dcontext.tensor};
}

CrossRnnGradients run(CellArguments& arguments, const Tensor& grad, const Tensor& activations, int64_t grad_mask) {
  arguments.prepare();
  arguments.check_backward(grad, activations, grad_mask);
  const ScalarType dtype = arguments.x0.scalar_type();
  if (computes_in_float(arguments, Passes::backward)) widen(arguments);
  align_few_rows(arguments);
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
