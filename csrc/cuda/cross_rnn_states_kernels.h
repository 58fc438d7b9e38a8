// Element-wise kernels of cross_rnn's backward: the states, computed again from a and g, and sums over tiles of rows and over tasks.
#pragma once

#include "../cell.h"
#include "memory.h"

namespace dcrnn_fast::cuda {

inline constexpr int element_threads = 256, element_units = 4;

template <typename T>
struct StatesArguments {
  const T *x0, *activations;  // [B, D], [tasks, L, B, G, D]
  T* states;                  // [tasks, L - 1, B, D]: before every step but the first
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
  A x0[element_units], h[element_units];
  load(x0, p.x0 + row * p.dim + unit, left, p.vector);
#pragma unroll
  for (int i = 0; i < element_units; ++i) h[i] = x0[i];
  for (int step = 0; step < p.steps - 1; ++step) {
    const T* const activations = p.activations + ((task * p.steps + step) * p.batch + row) * G * p.dim + unit;
    T* const state = p.states + ((task * (p.steps - 1) + step) * p.batch + row) * p.dim + unit;
    A a[element_units], g[element_units];
    load(a, activations, left, p.vector);
    if constexpr (G == 2) load(g, activations + p.dim, left, p.vector);
#pragma unroll
    for (int i = 0; i < element_units; ++i) {
      T rounded;
      round_to(rounded, next_state<A>(h[i], x0[i], a[i], G == 2 ? g[i] : A(1)));
      h[i] = widen(rounded);
    }
    store(state, h, left, p.vector);
  }
}

// Sums over the tiles of rows and, if all steps share their weights, over the steps of a task. A sum replaces its first summand.
template <typename A>
struct TileSumArguments {
  A* sums;  // [groups, count, width]
  int64_t groups, count, width;
};

template <typename A>
__global__ __launch_bounds__(element_threads) void sum_over_tiles(const __grid_constant__ TileSumArguments<A> p) {
  const int64_t i = int64_t(blockIdx.x) * element_threads + threadIdx.x;
  if (i >= p.groups * p.width) return;
  A* const first = p.sums + i / p.width * p.count * p.width + i % p.width;
  A sum = *first;
#pragma unroll 8
  for (int64_t tile = 1; tile < p.count; ++tile) sum += first[tile * p.width];
  *first = sum;
}

template <typename T>
struct TaskSumArguments {
  const accumulator<T>* from;  // [tasks, count]
  T* to;
  int64_t count;
  int tasks;
};

template <typename T>
__global__ __launch_bounds__(element_threads) void sum_over_tasks(const __grid_constant__ TaskSumArguments<T> p) {
  const int64_t i = int64_t(blockIdx.x) * element_threads + threadIdx.x;
  if (i >= p.count) return;
  accumulator<T> sum = 0;
  for (int task = 0; task < p.tasks; ++task) sum += p.from[task * p.count + i];
  round_to(p.to[i], sum);
}

}  // namespace dcrnn_fast::cuda
