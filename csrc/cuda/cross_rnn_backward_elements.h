// The element-wise part of a step of cross_rnn's backward, and the kernel that does it for the last step. Letters as in
// cross_rnn_backward_kernels.h.
#pragma once

#include "../cell.h"
#include "memory.h"

namespace dcrnn_fast::cuda {

// Arguments of a step's element-wise part. Strides are in values, from task to task.
template <typename T>
struct ElementArguments {
  using A = accumulator<T>;
  const T *x0, *activations;  // [B, D], of each task [B, G, D]
  T* gradients;               // da|dq [B, G, D] of each task
  A *dx0, *sums;              // of each task [B, D], or null if nobody asks for it; of each task and tile of rows [G, D]
  int64_t batch, activations_stride, gradients_stride, sums_stride;
  int dim, tile_rows;
  bool vector;
};

// Writes da|dq of `count` neighbouring units of a row, adds them to `column_sums`, and writes dx0 or adds to it.
template <int G, bool add, int count, typename T, typename A = accumulator<T>>
DCRNN_DEVICE void element_gradients(const ElementArguments<T>& p, const A (&d)[count], int64_t task, int64_t row, int unit,
                                    A (&column_sums)[G][count]) {
  const int left = p.dim - unit;
  const int64_t from = row * p.dim + unit, kept = row * G * p.dim + unit;
  A x0[count], a[count], g[count], dx0[count], da[count], dq[count];
  load(x0, p.x0 + from, left, p.vector);
  load(a, p.activations + task * p.activations_stride + kept, left, p.vector);
  if constexpr (G == 2) load(g, p.activations + task * p.activations_stride + kept + p.dim, left, p.vector);
  A* const sum = p.dx0 ? p.dx0 + task * p.batch * p.dim + from : nullptr;
  if (add && sum)
    load(dx0, sum, left, p.vector);
  else
#pragma unroll
    for (int i = 0; i < count; ++i) dx0[i] = A(0);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const StepGradient<A> gradient = step_gradient<A>(d[i], x0[i], a[i], G == 2 ? g[i] : A(1));
    da[i] = gradient.da, dq[i] = gradient.dq, dx0[i] += gradient.dx0;
    if (i < left) {
      column_sums[0][i] += da[i];
      if constexpr (G == 2) column_sums[G - 1][i] += dq[i];
    }
  }
  T* const gradients = p.gradients + task * p.gradients_stride + kept;
  store(gradients, da, left, p.vector);
  if constexpr (G == 2) store(gradients + p.dim, dq, left, p.vector);
  if (sum) store(sum, dx0, left, p.vector);
}

template <typename T>
struct StartArguments {
  ElementArguments<T> elements;
  const T* grad;  // of each task [B, D]
  int64_t grad_stride;
};

inline constexpr int start_warps = 8, start_units = 4;
template <typename T>
inline constexpr int start_blocks_at_once = sizeof(T) == 8 ? 3 : 4;  // left alone, the compiler aims at more and spills a few registers

// The element-wise part of the last step.
template <int G, typename T>
__global__ __launch_bounds__(32 * start_warps,
                             start_blocks_at_once<T>) void cross_rnn_backward_start(const __grid_constant__ StartArguments<T> arguments) {
  using A = accumulator<T>;
  const ElementArguments<T>& p = arguments.elements;
  constexpr int columns = 32 * start_units;
  const int column_tiles = (p.dim + columns - 1) / columns, tile = blockIdx.x / column_tiles;
  const int warp = threadIdx.x / 32, local = threadIdx.x % 32 * start_units, unit = blockIdx.x % column_tiles * columns + local;
  const int64_t task = blockIdx.y, first = int64_t(tile) * p.tile_rows;
  const int64_t last = first + p.tile_rows < p.batch ? first + p.tile_rows : p.batch;
  A sums[G][start_units] = {};
  if (unit < p.dim)
    for (int64_t row = first + warp; row < last; row += start_warps) {
      A d[start_units];
      load(d, arguments.grad + task * arguments.grad_stride + row * p.dim + unit, p.dim - unit, p.vector);
      element_gradients<G, false>(p, d, task, row, unit, sums);
    }
  A* const shared = reinterpret_cast<A*>(shared_memory());  // [warps, G, columns]
#pragma unroll
  for (int g = 0; g < G; ++g)
#pragma unroll
    for (int i = 0; i < start_units; ++i) shared[(warp * G + g) * columns + local + i] = sums[g][i];
  __syncthreads();
  for (int i = threadIdx.x; i < G * columns; i += 32 * start_warps) {
    const int at = blockIdx.x % column_tiles * columns + i % columns;
    if (at >= p.dim) continue;
    A sum = 0;
    for (int w = 0; w < start_warps; ++w) sum += shared[w * G * columns + i];
    p.sums[task * p.sums_stride + (int64_t(tile) * G + i / columns) * p.dim + at] = sum;
  }
}

template <typename T>
constexpr int start_shared_bytes(int gates) {
  return start_warps * gates * 32 * start_units * static_cast<int>(sizeof(accumulator<T>));
}

}  // namespace dcrnn_fast::cuda
