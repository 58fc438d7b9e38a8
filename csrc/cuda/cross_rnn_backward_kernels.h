// The kernels of cross_rnn's backward. Letters as in cross_rnn_forward_kernels.h, and d = dL/dh' of a step. A step of the backward has two
// parts:
//
//     element-wise:  da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
//     product:       dh = d + W^T da + V^T dq
//
// A product kernel computes dh of one step and then, while dh is in registers, the element-wise part of the step before. There are no
// atomics: sums over rows add one partial sum a tile, and sums over tasks go in the order of the tasks.
#pragma once

#include "../cell.h"
#include "bank_rows.h"
#include "cross_rnn_forward_kernels.h"
#include "multiply.h"

namespace dcrnn_fast::cuda {

// Arguments of a step's element-wise part. Strides are in values, from task to task.
template <typename T>
struct ElementArguments {
  using A = accumulator<T>;
  const T *x0, *activations;  // [B, D], of each task [B, G, D]
  T* gradients;               // da|dq [B, G, D] of each task
  A *dx0, *sums;              // of each task [B, D]; of each task and tile of rows [G, D]
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
  A* const sum = p.dx0 + task * p.batch * p.dim + from;
  if constexpr (add) load(dx0, sum, left, p.vector);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const StepGradient<A> gradient = step_gradient<A>(d[i], x0[i], a[i], G == 2 ? g[i] : A(1));
    da[i] = gradient.da, dq[i] = gradient.dq, dx0[i] = add ? dx0[i] + gradient.dx0 : gradient.dx0;
    if (i < left) {
      column_sums[0][i] += da[i];
      if constexpr (G == 2) column_sums[G - 1][i] += dq[i];
    }
  }
  T* const gradients = p.gradients + task * p.gradients_stride + kept;
  store(gradients, da, left, p.vector);
  if constexpr (G == 2) store(gradients + p.dim, dq, left, p.vector);
  store(sum, dx0, left, p.vector);
}

template <typename T>
struct StartArguments {
  ElementArguments<T> elements;
  const T* grad;  // of each task [B, D]
  int64_t grad_stride;
};

inline constexpr int start_warps = 8, start_units = 4;

// The element-wise part of the last step.
template <int G, typename T>
__global__ __launch_bounds__(32 * start_warps) void cross_rnn_backward_start(const __grid_constant__ StartArguments<T> arguments) {
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

// Arguments of a step's product part, or of the context's gradient. Strides are in values.
template <typename T>
struct ProductArguments {
  using A = accumulator<T>;
  const T* gradients;    // da|dq [B, G, D] of each task and, for the context's gradient, of each step
  BankRows<T> weight;    // rows [G, K]
  const int32_t* index;  // of each task
  int64_t batch, gradients_stride, gradients_step, index_stride;
  int dim, columns, tasks, step_rows;
  bool vector;
  // for the product part
  const T *grad, *state_grad;  // the last state's gradient, of each task [B, D], or null to read `d`; this state's own gradient, or null
  A *d, *dx0;                  // of each task [B, D]
  int64_t grad_stride;
  bool first;  // the first step: dh is added to dx0
  ElementArguments<T> before;
  // for the context's gradient: of each step [B, C]
  T* dcontext;
};

template <typename M, int G, typename Tile_, int stages_, bool context_>
struct ProductKernel {
  using Tile = Tile_;
  using T = typename M::Value;
  using A = accumulator<T>;
  static constexpr int stages = stages_, threads = Tile::threads;
  static constexpr bool context = context_;
  static constexpr int left_bytes = Tile::rows * row_bytes;
  static constexpr int row_chunks = Tile::columns / chunk_values<T>;  // of a weight row in a tile
  static constexpr int right_bytes = (row_chunks + chunks - 1) / chunks * row_values<T> * row_bytes;
  static constexpr int copies = row_values<T> * row_chunks / threads, rows_at_once = threads / row_chunks;
  static_assert(copies * rows_at_once == row_values<T>);
  // As many as the registers allow without a spill.
  static constexpr int blocks_at_once = Tile::threads == 128 ? 3 : sizeof(T) == 2 && !context ? 2 : 1;

  // The pipeline's stages. After the product, each warp's column sums take their place.
  static constexpr int shared_bytes() { return stages * (left_bytes + right_bytes); }
  static_assert(context || shared_bytes() >= Tile::warps_m * G * Tile::columns * static_cast<int>(sizeof(A)));

  const ProductArguments<T>& p;
  unsigned char* const pipeline;
  const int width, column_tiles, blocks, tile, first_column;
  const int64_t second;  // index of the grid: the task or, for the context, the step

  DCRNN_DEVICE explicit ProductKernel(const ProductArguments<T>& arguments)
      : p(arguments),
        pipeline(shared_memory()),
        width(context ? p.columns : p.dim),
        column_tiles((width + Tile::columns - 1) / Tile::columns),
        blocks(stages_of<T>(p.dim)),
        tile(blockIdx.x / column_tiles),
        first_column(blockIdx.x % column_tiles * Tile::columns),
        second(blockIdx.y) {}

  DCRNN_DEVICE unsigned char* left(int stage) const { return pipeline + stage * (left_bytes + right_bytes); }
  DCRNN_DEVICE unsigned char* right(int stage) const { return left(stage) + left_bytes; }

  // What is loaded next: a block of units of da or dq of a task. The index is read one block ahead, and used only when the copies need it.
  struct Position {
    int64_t task;
    int part = 0, block = 0;
    int rows[copies];  // of the index, or -1

    DCRNN_DEVICE explicit Position(const ProductKernel& kernel) : task(context ? 0 : kernel.second) { find(kernel); }

    DCRNN_DEVICE void find(const ProductKernel& kernel) {
      const ProductArguments<T>& p = kernel.p;
      const int32_t* const index = p.index + task * p.index_stride + (context ? kernel.second * p.step_rows : 0);
#pragma unroll
      for (int i = 0; i < copies; ++i) {
        const int unit = block * row_values<T> + int(threadIdx.x) / row_chunks + i * rows_at_once;
        rows[i] = unit < p.dim && task < p.tasks ? index[unit] : -1;
      }
    }

    DCRNN_DEVICE void advance(const ProductKernel& kernel) {
      if (++block == kernel.blocks) {
        block = 0;
        if (++part == G) part = 0, ++task;
      }
      find(kernel);
    }
  };

  DCRNN_DEVICE void load_stage(int stage, const Position& at) const {
    const T* const gradients = p.gradients + at.task * p.gradients_stride + (context ? second * p.gradients_step : 0) + at.part * p.dim;
    copy_rows<Tile>(left(stage), gradients, int64_t(tile) * Tile::rows, p.batch, int64_t(G) * p.dim, at.block * row_values<T>, p.dim,
                    p.vector);
    const int chunk = threadIdx.x % row_chunks, column = first_column + chunk * chunk_values<T>;
    const int64_t size = p.columns + p.dim;
#pragma unroll
    for (int i = 0; i < copies; ++i) {
      unsigned char* const to = right(stage) + place_across<T>(int(threadIdx.x) / row_chunks + i * rows_at_once, chunk * chunk_values<T>);
      const T* const row = p.weight.row(at.rows[i], at.task, G * size);
      const T* const from = row ? row + at.part * size + (context ? 0 : p.columns) + column : p.gradients;
      copy_chunk(to, from, row != nullptr, width - column, p.vector);
    }
  }

  DCRNN_DEVICE void finish_context(const typename Tile::Sums& sums) const {
#pragma unroll
    for (int n = 0; n < Tile::blocks_n; ++n) {
      const int column = first_column + Tile::first_column() + n * 8 + Tile::lane() % 4 * 2;
#pragma unroll
      for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
        const int64_t row = int64_t(tile) * Tile::rows + Tile::first_row() + half_block * 8 + Tile::lane() / 4;
        const A pair[2] = {sums[half_block / 2][n][half_block % 2 * 2], sums[half_block / 2][n][half_block % 2 * 2 + 1]};
        if (row < p.batch && column < width) store(p.dcontext + (second * p.batch + row) * width + column, pair, width - column, p.vector);
      }
    }
  }

  DCRNN_DEVICE void finish_step(const typename Tile::Sums& sums) const {
    A* const shared = reinterpret_cast<A*>(pipeline);  // [warps_m, G, columns]
    const int64_t all = p.batch * p.dim;
#pragma unroll
    for (int n = 0; n < Tile::blocks_n; ++n) {
      const int local = Tile::first_column() + n * 8 + Tile::lane() % 4 * 2, unit = first_column + local, count = p.dim - unit;
      A column_sums[G][2] = {};
#pragma unroll
      for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
        const int64_t row = int64_t(tile) * Tile::rows + Tile::first_row() + half_block * 8 + Tile::lane() / 4;
        if (row >= p.batch || count <= 0) continue;
        const int64_t from = row * p.dim + unit;
        A d[2], more[2];
        if (p.grad)
          load(d, p.grad + second * p.grad_stride + from, count, p.vector);
        else
          load(d, p.d + second * all + from, count, p.vector);
        if (p.state_grad) {
          load(more, p.state_grad + second * p.grad_stride + from, count, p.vector);
          d[0] += more[0], d[1] += more[1];
        }
        d[0] += sums[half_block / 2][n][half_block % 2 * 2], d[1] += sums[half_block / 2][n][half_block % 2 * 2 + 1];
        if (p.first) {
          load(more, p.dx0 + second * all + from, count, p.vector);
          d[0] += more[0], d[1] += more[1];
          store(p.dx0 + second * all + from, d, count, p.vector);
        } else {
          store(p.d + second * all + from, d, count, p.vector);
          element_gradients<G, true>(p.before, d, second, row, unit, column_sums);
        }
      }
      if (p.first) continue;
#pragma unroll
      for (int g = 0; g < G; ++g)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          A sum = column_sums[g][j];
#pragma unroll
          for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
          if (Tile::lane() < 4) shared[(int(threadIdx.x) / 32 / Tile::warps_n * G + g) * Tile::columns + local + j] = sum;
        }
    }
    if (p.first) return;
    __syncthreads();
    for (int i = threadIdx.x; i < G * Tile::columns; i += threads) {
      const int unit = first_column + i % Tile::columns;
      if (unit >= p.dim) continue;
      A sum = 0;
      for (int warp = 0; warp < Tile::warps_m; ++warp) sum += shared[warp * G * Tile::columns + i];
      p.before.sums[second * p.before.sums_stride + (int64_t(tile) * G + i / Tile::columns) * p.dim + unit] = sum;
    }
  }

  DCRNN_DEVICE void run() const {
    const int total = (context ? p.tasks : 1) * G * blocks;
    Position loading(*this);
    for (int stage = 0; stage < stages - 1; ++stage) {
      if (stage < total) {
        load_stage(stage, loading);
        loading.advance(*this);
      }
      commit_copies();
    }
    typename Tile::Sums sums = {};
    for (int i = 0; i < total; ++i) {
      wait_for_copies<stages - 2>();
      __syncthreads();
      if (i + stages - 1 < total) {
        load_stage((i + stages - 1) % stages, loading);
        loading.advance(*this);
      }
      commit_copies();
      multiply_across<M, Tile>(sums, left(i % stages), right(i % stages));
    }
    wait_for_copies<0>();
    if constexpr (context) {
      finish_context(sums);
    } else {
      __syncthreads();
      finish_step(sums);
    }
  }
};

template <typename Kernel>
__global__ __launch_bounds__(Kernel::threads, Kernel::blocks_at_once) void cross_rnn_backward(
    const __grid_constant__ ProductArguments<typename Kernel::T> arguments) {
  Kernel(arguments).run();
}

}  // namespace dcrnn_fast::cuda
