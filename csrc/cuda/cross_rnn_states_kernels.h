// The states of cross_rnn's backward, computed again from a and g.
#pragma once

#include "../cell.h"
#include "memory.h"

namespace dcrnn_fast::cuda {

inline constexpr int element_threads = 256, element_units = 4;

template <typename T>
struct StatesArguments {
  const T *x0, *activations;  // [B, D], [tasks, L, B, G, D]
  T* states;                  // [tasks, L, B, D]: before every step
  int64_t batch;
  int dim, steps;
  bool vector;
};

// Rounds the state at every step, as the forward does.
template <int G, typename T>
__global__ __launch_bounds__(element_threads) void cross_rnn_states(const __grid_constant__ StatesArguments<T> p) {
  using A = accumulator<T>;
  const int in_row = (p.dim + element_units - 1) / element_units;
  const int64_t item = int64_t(blockIdx.x) * element_threads + threadIdx.x, row = item / in_row, task = blockIdx.y;
  if (row >= p.batch) return;
  const int unit = item % in_row * element_units, left = p.dim - unit;
  A x0[element_units], h[element_units], a[element_units], g[element_units];
  load(x0, p.x0 + row * p.dim + unit, left, p.vector);
#pragma unroll
  for (int i = 0; i < element_units; ++i) h[i] = x0[i];
  for (int step = 0; step < p.steps; ++step) {
    const int64_t at = (task * p.steps + step) * p.batch + row;
    store(p.states + at * p.dim + unit, h, left, p.vector);
    if (step == p.steps - 1) return;
    load(a, p.activations + at * G * p.dim + unit, left, p.vector);
    if constexpr (G == 2) load(g, p.activations + (at * G + 1) * p.dim + unit, left, p.vector);
#pragma unroll
    for (int i = 0; i < element_units; ++i) {
      T rounded;
      round_to(rounded, next_state<A>(h[i], x0[i], a[i], G == 2 ? g[i] : A(1)));
      h[i] = widen(rounded);
    }
  }
}

}  // namespace dcrnn_fast::cuda
