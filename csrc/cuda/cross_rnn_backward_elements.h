// The element-wise parts of cross_rnn's backward: the states, computed again from a and g, and the gradients of a step. Letters as in
// cross_rnn_backward_kernels.h.
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
  load(h, p.x0 + row * p.dim + unit, left, p.vector);
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

// Arguments of a step's element-wise part. Strides are in values, from task to task.
template <typename T>
struct ElementArguments {
  using A = accumulator<T>;
  const T *x0, *activations;  // [B, D], of each task [B, G, D]
  T* gradients;               // da|dq [B, G, D] of each task
  A *dx0, *sums;              // of each task [B, D], or null if nobody asks for it; of each task and tile of rows [G, D]
  int64_t batch, stride, sums_stride;
  int dim;
  bool adds, vector;  // whether dx0 is added to what is there
};

// Writes da|dq of `count` neighbouring units of a row, adds them to `column_sums`, and writes dx0 or adds to it.
template <int G, int count, typename T, typename A = accumulator<T>>
DCRNN_DEVICE void element_gradients(const ElementArguments<T>& p, const A (&d)[count], int64_t task, int64_t row, int unit,
                                    A (&column_sums)[G][count]) {
  const int left = p.dim - unit;
  const int64_t from = row * p.dim + unit, kept = task * p.stride + row * G * p.dim + unit;
  A x0[count], a[count], g[count], dx0[count] = {}, da[count], dq[count];
  load(x0, p.x0 + from, left, p.vector);
  load(a, p.activations + kept, left, p.vector);
  if constexpr (G == 2) load(g, p.activations + kept + p.dim, left, p.vector);
  A* const sum = p.dx0 ? p.dx0 + task * p.batch * p.dim + from : nullptr;
  if (p.adds && sum) load(dx0, sum, left, p.vector);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const StepGradient<A> gradient = step_gradient<A>(d[i], x0[i], a[i], G == 2 ? g[i] : A(1));
    da[i] = gradient.da, dq[i] = gradient.dq, dx0[i] += gradient.dx0;
    if (i < left) {
      column_sums[0][i] += da[i];
      if constexpr (G == 2) column_sums[G - 1][i] += dq[i];
    }
  }
  store(p.gradients + kept, da, left, p.vector);
  if constexpr (G == 2) store(p.gradients + kept + p.dim, dq, left, p.vector);
  if (sum) store(sum, dx0, left, p.vector);
}

}  // namespace dcrnn_fast::cuda
