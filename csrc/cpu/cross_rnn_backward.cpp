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
      for (int64_t i = begin; i < end && !chunk.p.interruption.came(); ++i) own->run(i, i - first);
    });
    chunk.p.interruption.raise();
    if (!chunk.out.weight) continue;
    weights.add_weights();
    chunk.p.interruption.raise();
    for (int64_t i = first; i < last; ++i) weights.add_biases(chunk.sums(i - first));
  }
}

template <typename T>
CrossRnnGradients backward(const Arguments& arguments, const Tensor& grad, const Tensor& activations, int64_t needs) {
  using A = accumulator<T>;
  const Tensor& like = arguments.x0;
  const Problem<T> p(arguments, activations.numel() ? Passes::backward : Passes::both);
  const bool weights = needs & need_banks, has_work = p.batch && p.tasks;
  Gradient<T> dx0(like, needs & need_x0, has_work, {p.batch, p.dim});
  Gradient<T> dcontext(like, needs & need_context, has_work, {p.steps, p.batch, p.context});
  Tensor banks[4];
  const Tensor* const inputs[4] = {&arguments.shared_weight, &arguments.shared_bias, &arguments.private_weight, &arguments.private_bias};
  for (int i = 0; i < 4; ++i) banks[i] = new_gradient(like, weights, has_work, with_trailing({}, *inputs[i], 0));
  if (has_work) {
    const int64_t units = p.tasks * p.bank.rows * p.gates;
    const auto data = [&](int i) { return static_cast<T*>(banks[i].mutable_data_ptr()); };
    Buffer<A> dweight;
    const Buffer<double> dbias(weights ? units : 0);
    if (weights) std::fill_n(dbias.get(), units, 0.0);
    Gradients<A> out{dx0.data, p.context ? dcontext.data : nullptr, nullptr, dbias.get()};
    const bool reduce = weights && (is_low<T> || !reads_in_order(p.bank));
    const int only = p.bank.num_shared ? 0 : 2;  // the bank that is not empty, where gradients need no sums
    if (reduce)
      out.weight = (dweight = Buffer<A>(units * p.columns)).get();
    else if constexpr (!is_low<T>)
      out.weight = weights ? data(only) : nullptr;
    BackwardChunk<T> chunk(p, out);
    walk(chunk, static_cast<const T*>(grad.const_data_ptr()), arguments.return_states,
         activations.numel() ? static_cast<const T*>(activations.const_data_ptr()) : nullptr);
    if (reduce) {
      const Readers readers(p.bank);
      reduce_rows(p.bank, readers, dweight.get(), data(0), data(2), p.gates * p.columns);
      reduce_rows(p.bank, readers, dbias.get(), data(1), data(3), p.gates);
    } else if (weights) {
      std::copy_n(dbias.get(), units, data(only + 1));
    }
  }
  dx0.finish();
  dcontext.finish();
  return {dx0.tensor, banks[0], banks[1], banks[2], banks[3], dcontext.tensor};
}

CrossRnnGradients run(Arguments& arguments, const Tensor& grad, const Tensor& states, const Tensor& activations, int64_t needs) {
  arguments.prepare(aoti_torch_device_type_cpu());
  check_index_values(arguments.bank());
  arguments.check_backward(grad, states, activations, needs);
  const ScalarType dtype = arguments.x0.scalar_type();
  if (computes_in_float(arguments, Passes::backward)) widen(arguments);
  const auto given = [&](const Tensor& tensor, const char* name) { return converted(dense(tensor, name), arguments.x0.scalar_type()); };
  const CrossRnnGradients found = with_type<BFloat16, Half>(arguments.x0, "x0", [&](auto zero) {
    return backward<decltype(zero)>(arguments, given(grad, "grad"), given(activations, "activations"), needs);
  });
  return std::apply([&](const auto&... gradient) { return CrossRnnGradients{converted(gradient, dtype)...}; }, found);
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) {
  m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cross_rnn_backward<&dcrnn_fast::cpu::run>));
}
