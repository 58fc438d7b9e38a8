// The bodies of the passes in elementwise.h. One file for each instruction set sets the target, names the namespace in DCRNN_ISA and
// includes this file.
#include "../cell.h"

namespace dcrnn_fast::cpu::DCRNN_ISA {
namespace {

template <int G, bool keep, typename T>
void forward(const ForwardStep<T>& step) {
  using A = accumulator<T>;
  const A *const bias = step.bias, *const gate_bias = bias + step.plane;
  for (int64_t row = 0; row < step.rows; ++row) {
    const T* const product = step.product[row];
    const T* const x0 = step.x0[row];
    const A* const state = step.state[row];
    A* const next = step.next[row];
    T* const low = is_low<T> ? step.low[row] : nullptr;
    T* const activations = keep ? step.activations[row] : nullptr;
#pragma GCC ivdep
    for (int64_t d = 0; d < step.dim; ++d) {
      const A a = A(product[G * d]) + bias[d];
      const A g = G == 2 ? sigmoid(A(product[G * d + G - 1]) + gate_bias[d]) : A(1);
      if constexpr (keep) {
        activations[d] = T(a);
        if constexpr (G == 2) activations[step.plane + d] = T(g);
      }
      const A h = next_state<A>(state[d], A(x0[d]), a, g);
      next[d] = h;
      if constexpr (is_low<T>) low[d] = T(h);
    }
  }
}

template <int G, typename T>
void forward_step(const ForwardStep<T>& step) {
  if (step.activations)
    forward<G, true>(step);
  else
    forward<G, false>(step);
}

template <int G, typename T>
void state_step(const StateStep<T>& step) {
  using A = accumulator<T>;
  for (int64_t row = 0; row < step.rows; ++row) {
    const T* const activations = step.activations[row];
    const T* const x0 = step.x0[row];
    const A* const state = step.state[row];
    A* const next = step.next[row];
    T* const low = is_low<T> ? step.low[row] : nullptr;
#pragma GCC ivdep
    for (int64_t d = 0; d < step.dim; ++d) {
      const A h = next_state<A>(state[d], A(x0[d]), A(activations[d]), G == 2 ? A(activations[step.dim + d]) : A(1));
      next[d] = h;
      if constexpr (is_low<T>) low[d] = T(h);
    }
  }
}

template <int G, bool has_d, bool has_added, typename T>
void backward(const BackwardStep<T>& step) {
  using A = accumulator<T>;
  A* const sums = step.sums;
  for (int64_t row = 0; row < step.rows; ++row) {
    const T* const activations = step.activations[row];
    const T* const x0 = step.x0[row];
    const T* const added = has_added ? step.added[row] : nullptr;
    const A* const d_in = has_d ? step.d[row] : nullptr;
    A* const d_out = step.d_out[row];
    A* const dx0 = step.dx0[row];
    T* const products = step.products[row];
#pragma GCC ivdep
    for (int64_t i = 0; i < step.dim; ++i) {
      A d = 0;
      if constexpr (has_d) d = d_in[i];
      if constexpr (has_added) d += A(added[i]);
      d_out[i] = d;
      const StepGradient<A> gradient = step_gradient<A>(d, A(x0[i]), A(activations[i]), G == 2 ? A(activations[step.dim + i]) : A(1));
      dx0[i] += gradient.dx0;
      products[G * i] = T(gradient.da);
      sums[i] += gradient.da;
      if constexpr (G == 2) {
        products[G * i + 1] = T(gradient.dq);
        sums[step.dim + i] += gradient.dq;
      }
    }
  }
}

template <int G, typename T>
void backward_step(const BackwardStep<T>& step) {
  if (step.d && step.added)
    backward<G, true, true>(step);
  else if (step.d)
    backward<G, true, false>(step);
  else
    backward<G, false, true>(step);
}

template <typename From, typename To>
void convert(const From* from, To* to, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) to[i] = To(from[i]);
}

template <typename From, typename To>
void accumulate(const From* from, To* to, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) to[i] += To(from[i]);
}

template <typename T>
constexpr Kernels<T> passes = {
    forward_step<2, T>,
    forward_step<1, T>,
    state_step<2, T>,
    state_step<1, T>,
    backward_step<2, T>,
    backward_step<1, T>,
    convert<T, accumulator<T>>,
    accumulate<T, accumulator<T>>,
    accumulate<accumulator<T>, accumulator<T>>,
    convert<accumulator<T>, T>,
};

}  // namespace

template <>
const Kernels<float>& table<Kernels<float>>() {
  return passes<float>;
}
template <>
const Kernels<double>& table<Kernels<double>>() {
  return passes<double>;
}
template <>
const Kernels<BFloat16>& table<Kernels<BFloat16>>() {
  return passes<BFloat16>;
}
template <>
const Kernels<Half>& table<Kernels<Half>>() {
  return passes<Half>;
}

}  // namespace dcrnn_fast::cpu::DCRNN_ISA
