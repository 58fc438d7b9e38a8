// The kernels of cross_rnn's backward. Letters as in cross_rnn_forward_kernels.h, and d = dL/dh' of a step. A step of the backward has two
// parts:
//
//     element-wise:  da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
//     product:       dh = d + W^T da + V^T dq
//
// A product kernel computes dh of one step and then, while dh is in the block, the element-wise part of the step before. It begins with the
// last step's element-wise part alone. There are no atomics: sums over rows add one partial sum a tile, and sums over tasks go in the order
// of the tasks. d is rounded to T between the steps, as plain PyTorch does; dx0 stays in the accumulator's type.
#pragma once

#include "../cell.h"
#include "cross_rnn.h"
#include "pipeline.h"

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

// A tile's sums in shared memory. After a product each thread holds pairs of columns of many rows; from here it reads runs of neighbouring
// columns, so that it can access global memory by 16 bytes.
template <typename Tile>
struct StagedSums {
  using A = typename Tile::A;
  static constexpr int each = chunk_values<A>;  // of an access
  unsigned char* const memory;                  // [rows, columns + 8]

  static constexpr int bytes(int rows) { return rows * (Tile::columns + 8) * static_cast<int>(sizeof(A)); }

  // Rows are eight values longer than a tile's, so that a warp's writes, of four rows, reach all memory banks. In every other row and block
  // of 32 columns, neighbouring groups of four columns have changed places: a thread that reads eight floats as two groups meets one whose
  // first group lies in the other's banks.
  DCRNN_DEVICE unsigned char* place(int row, int column) const {
    return memory + (row * (Tile::columns + 8) + (column ^ ((column / 32 + row) % 2 * 4))) * static_cast<int>(sizeof(A));
  }

  DCRNN_DEVICE void take(const typename Tile::Sums& sums) const {
#pragma unroll
    for (int m = 0; m < Tile::blocks_m; ++m)
#pragma unroll
      for (int n = 0; n < Tile::blocks_n; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Pack<A, 2> pair{{sums[m][n][2 * half], sums[m][n][2 * half + 1]}};
          const int row = Tile::first_row() + m * 16 + half * 8 + Tile::lane() / 4;
          write_shared(place(row, Tile::first_column() + n * 8 + Tile::lane() % 4 * 2), pair);
        }
  }

  template <int count>
  DCRNN_DEVICE void read(A (&out)[count], int row, int column) const {
#pragma unroll
    for (int i = 0; i < count; i += each) {
      const auto pack = read_shared<Pack<A, each>>(place(row, column + i));
#pragma unroll
      for (int j = 0; j < each; ++j) out[i + j] = pack.values[j];
    }
  }

  template <int count>
  DCRNN_DEVICE void write(const A (&values)[count], int row, int column) const {
#pragma unroll
    for (int i = 0; i < count; i += each) {
      Pack<A, each> pack;
#pragma unroll
      for (int j = 0; j < each; ++j) pack.values[j] = values[i + j];
      write_shared(place(row, column + i), pack);
    }
  }

  DCRNN_DEVICE A value(int row, int column) const { return read_shared<A>(place(row, column)); }
};

// Arguments of a step's product part, or of the context's gradient. Strides are in values.
template <typename T>
struct ProductArguments {
  using A = accumulator<T>;
  const T* gradients;  // da|dq [B, G, D] of each task and, for the context's gradient, of each step
  BankRows<T> weight;  // rows [G, K]
  int64_t batch, gradients_stride, gradients_step;
  int dim, columns;
  bool vector;
  // for the product part, of each task [B, D]
  const T *d, *state_grad;  // d, and the gradient of this step's own state, or null
  T* dh;                    // or null if nobody reads it
  A* dx0;                   // or null if nobody asks for it
  int64_t d_stride, state_grad_stride;
  int step;    // in the first step, dh is added to dx0
  bool start;  // the last step's element-wise part alone, from d
  // for the element-wise part of the step before
  const T *x0, *activations;  // [B, D], of each task [B, G, D]
  T* gradients_before;        // da|dq [B, G, D] of each task
  A* sums;                    // of each task and tile of rows [G, D]
  int64_t sums_stride;
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
  using Staged = StagedSums<Tile>;
  static constexpr int left_bytes = Tile::rows * row_bytes;
  // A weight row in a tile has `row_chunks` chunks of 16 bytes. So has a row of the result, a thread takes one of them after the product.
  static constexpr int neighbours = chunk_values<T>, row_chunks = Tile::columns / neighbours;
  static constexpr int right_bytes = (row_chunks + chunks - 1) / chunks * row_values<T> * row_bytes;
  static constexpr int copies = row_values<T> * row_chunks / threads, rows_at_once = threads / row_chunks;
  static_assert(copies * rows_at_once == row_values<T>);
  // As many as the registers allow without a spill.
  static constexpr int blocks_at_once = Tile::threads == 128 ? 3 : sizeof(T) == 2 && !context ? 2 : 1;

  // The pipeline's stages. After the product, the sums take their place, and the column sums of every `rows_at_once`-th row.
  static constexpr int shared_bytes() { return stages * (left_bytes + right_bytes); }
  static_assert(shared_bytes() >= Staged::bytes(Tile::rows) + (context ? 0 : Staged::bytes(rows_at_once * G)));

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

  // What is loaded next: a block of units of da or dq of a task.
  struct Position {
    int task, part = 0, block = 0;
    DCRNN_DEVICE void advance(const ProductKernel& kernel) {
      if (++block < kernel.blocks) return;
      block = 0;
      if (++part == G) part = 0, ++task;
    }
  };

  DCRNN_DEVICE void load_stage(const Position& at, int stage) const {
    const T* const gradients = p.gradients + at.task * p.gradients_stride + (context ? second * p.gradients_step : 0) + at.part * p.dim;
    copy_rows<Tile>(left(stage), gradients, int64_t(tile) * Tile::rows, p.batch, int64_t(G) * p.dim, at.block * row_values<T>, p.dim,
                    p.vector);
    const int chunk = threadIdx.x % row_chunks, column = first_column + chunk * chunk_values<T>;
    const int64_t size = p.columns + p.dim, in_row = at.part * size + (context ? 0 : p.columns) + column;
    const int64_t weight_step = p.weight.banks.weight_steps == 1 ? 0 : context ? second : p.step;
#pragma unroll
    for (int i = 0; i < copies; ++i) {
      const int k = int(threadIdx.x) / row_chunks + i * rows_at_once, unit = at.block * row_values<T> + k;
      const bool present = unit < p.dim;
      const T* const from = present ? p.weight.row(at.task, weight_step, unit, G * size) + in_row : p.gradients;
      copy_chunk(right(stage) + place_across<T>(k, chunk * chunk_values<T>), from, present, width - column, p.vector);
    }
  }

  DCRNN_DEVICE void finish_context(const Staged& staged) const {
    const int local = threadIdx.x % row_chunks * neighbours, column = first_column + local;
    if (column >= width) return;
    for (int at = threadIdx.x / row_chunks; at < Tile::rows; at += rows_at_once) {
      const int64_t row = int64_t(tile) * Tile::rows + at;
      if (row >= p.batch) return;
      A values[neighbours];
      staged.read(values, at, local);
      store(p.dcontext + (second * p.batch + row) * width + column, values, width - column, p.vector);
    }
  }

  // Writes da|dq of neighbouring units of a row, adds them to `column_sums`, and writes dx0 or adds to it.
  DCRNN_DEVICE void element_gradients(const A (&d)[neighbours], int64_t row, int unit, A (&column_sums)[G][neighbours]) const {
    const int left = p.dim - unit;
    const int64_t from = row * p.dim + unit, kept = second * p.gradients_stride + row * G * p.dim + unit;
    A x0[neighbours], a[neighbours], g[neighbours], dx0[neighbours] = {}, da[neighbours], dq[neighbours];
    load(x0, p.x0 + from, left, p.vector);
    load(a, p.activations + kept, left, p.vector);
    if constexpr (G == 2) load(g, p.activations + kept + p.dim, left, p.vector);
    A* const sum = p.dx0 ? p.dx0 + second * p.batch * p.dim + from : nullptr;
    if (!p.start && sum) load(dx0, sum, left, p.vector);
#pragma unroll
    for (int i = 0; i < neighbours; ++i) {
      const StepGradient<A> gradient = step_gradient<A>(d[i], x0[i], a[i], G == 2 ? g[i] : A(1));
      da[i] = gradient.da, dq[i] = gradient.dq, dx0[i] += gradient.dx0;
      if (i < left) {
        column_sums[0][i] += da[i];
        if constexpr (G == 2) column_sums[G - 1][i] += dq[i];
      }
    }
    store(p.gradients_before + kept, da, left, p.vector);
    if constexpr (G == 2) store(p.gradients_before + kept + p.dim, dq, left, p.vector);
    if (sum) store(sum, dx0, left, p.vector);
  }

  DCRNN_DEVICE void finish_step(const Staged& staged) const {
    const unsigned thread = fresh_thread_index();
    const int local = thread % row_chunks * neighbours, first = thread / row_chunks;
    const int column_tiles = (p.dim + Tile::columns - 1) / Tile::columns;  // again: the product leaves no register to keep it
    const int tile = blockIdx.x / column_tiles, first_column = blockIdx.x % column_tiles * Tile::columns;
    const int unit = first_column + local, left = p.dim - unit;
    const int64_t all = p.batch * p.dim;
    A column_sums[G][neighbours] = {};
#pragma unroll 1
    for (int at = first; at < Tile::rows; at += rows_at_once) {
      const int64_t row = int64_t(tile) * Tile::rows + at, from = row * p.dim + unit;
      if (row >= p.batch || left <= 0) break;
      A d[neighbours], more[neighbours];
      load(d, p.d + second * p.d_stride + from, left, p.vector);
      if (p.state_grad) {
        load(more, p.state_grad + second * p.state_grad_stride + from, left, p.vector);
        add(d, more);
      }
      staged.read(more, at, local);
      add(d, more);
      if (p.step == 0) {
        A* const dx0 = p.dx0 + second * all + from;
        load(more, dx0, left, p.vector);
        add(d, more);
        store(dx0, d, left, p.vector);
      } else {
        if (p.dh) store(p.dh + second * all + from, d, left, p.vector);
        element_gradients(d, row, unit, column_sums);
      }
    }
    if (p.step == 0) return;
    const Staged partial{pipeline + Staged::bytes(Tile::rows)};  // rows [G, rows_at_once]
#pragma unroll
    for (int g = 0; g < G; ++g) partial.write(column_sums[g], g * rows_at_once + first, local);
    __syncthreads();
    for (int i = thread; i < G * Tile::columns; i += threads) {
      const int column = i % Tile::columns, g = i / Tile::columns;
      if (first_column + column >= p.dim) continue;
      A sum = 0;
#pragma unroll 4
      for (int k = 0; k < rows_at_once; ++k) sum += partial.value(g * rows_at_once + k, column);
      p.sums[second * p.sums_stride + (int64_t(tile) * G + g) * p.dim + first_column + column] = sum;
    }
  }

  DCRNN_DEVICE void run() const {
    const int total = p.start ? 0 : (context ? static_cast<int>(p.weight.banks.tasks) : 1) * G * blocks;
    typename Tile::Sums sums = {};
    pipelined<stages>(*this, {context ? 0 : static_cast<int>(second)}, total, stages,
                      [&](int stage) { multiply_across<M, Tile>(sums, left(stage), right(stage)); });
    __syncthreads();
    const Staged staged{pipeline};
    staged.take(sums);
    __syncthreads();
    if constexpr (context)
      finish_context(staged);
    else
      finish_step(staged);
  }
};

template <typename Kernel>
__global__ __launch_bounds__(Kernel::threads, Kernel::blocks_at_once) void cross_rnn_backward(
    const __grid_constant__ ProductArguments<typename Kernel::T> arguments) {
  Kernel(arguments).run();
}

}  // namespace dcrnn_fast::cuda
