// Sums of the backwards of cross_rnn, each in one order: over tiles of rows, and over tasks.
#pragma once

#include "memory.h"

namespace dcrnn_fast::cuda {

inline constexpr int sum_threads = 256;

// Sums over the tiles of rows and, if all steps share their weights, over the steps of a task. A sum replaces its first summand.
template <typename A>
struct TileSumArguments {
  A* sums;  // [groups, count, width]
  int64_t groups, count, width;
};

template <typename A>
__global__ __launch_bounds__(sum_threads) void sum_over_tiles(const __grid_constant__ TileSumArguments<A> p) {
  const int64_t i = int64_t(blockIdx.x) * sum_threads + threadIdx.x;
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
__global__ __launch_bounds__(sum_threads) void sum_over_tasks(const __grid_constant__ TaskSumArguments<T> p) {
  const int64_t i = int64_t(blockIdx.x) * sum_threads + threadIdx.x;
  if (i >= p.count) return;
  accumulator<T> sum = 0;
  for (int task = 0; task < p.tasks; ++task) sum += p.from[task * p.count + i];
  round_to(p.to[i], sum);
}

}  // namespace dcrnn_fast::cuda
