// The kernel of cross_rnn's forward. A block computes a tile of rows and units of one step, or a tile of rows through all steps.
//
// Letters: T tasks, B rows, D units, C context columns, K = C + D, G = 2 (gated) or 1 (cross) vectors a unit. With u = [context, h]:
//
//     a = W u + b        g = sigmoid(V u + c)        h' = h + g * x0 * a
//
// The kernel copies the weights' rows from both banks straight into the tiles that the product reads. One thread sums both W's and V's
// products of a unit. Both schedules multiply and add in the same order, so that their bits are the same.
#pragma once

#include "../cell.h"
#include "bank_rows.h"
#include "multiply.h"

namespace dcrnn_fast::cuda {

// Strides are in values, from task to task and from step to step.
template <typename T>
struct ForwardArguments {
  const T *x0, *state, *context;  // [B, D], of each task [B, D], of each step [B, C] or null
  T *next, *activations, *start;  // of each task [B, D]; [B, G, D] or null; [B, D] or null: a copy of x0 goes there
  BankRows<T> weight, bias;       // rows [G, K], rows [G]
  int64_t batch;
  int dim, columns, first_step, steps;  // D, C, the first step and how many to do
  int64_t state_stride, next_stride, next_step, activations_stride, activations_step, start_stride;
  bool every_state;  // next takes every state, not the last one alone
  bool vector;       // rows are multiples of 16 bytes and start at multiples of 16 bytes
};

// The unit that a column of a tile's product computes, where a warp has `blocks` blocks of 8 columns: the columns of one thread are
// neighbouring units.
DCRNN_DEVICE int unit_of_column(int column, int blocks) {
  const int in_warp = column % (8 * blocks), in_block = in_warp % 8;
  return column - in_warp + in_block / 2 * 2 * blocks + in_warp / 8 * 2 + in_block % 2;
}

// The weight rows that this thread copies for one tile of units.
template <typename Tile, int G>
struct UnitRows {
  using T = typename Tile::Value;
  static constexpr int units = Tile::columns / Tile::rows_at_once;
  static_assert(units * Tile::rows_at_once == Tile::columns);
  const T* rows[units];  // null past the last unit

  DCRNN_DEVICE void find(const ForwardArguments<T>& p, int64_t task, int weight_step, int first_unit) {
#pragma unroll
    for (int i = 0; i < units; ++i) {
      const int unit = first_unit + unit_of_column(threadIdx.x / chunks + i * Tile::rows_at_once, Tile::blocks_n);
      rows[i] = unit < p.dim ? p.weight.row(task, weight_step, unit, G * int64_t(p.columns + p.dim)) : nullptr;
    }
  }

  // Copies a tile's values from `column` on; those past `left` become zeros.
  DCRNN_DEVICE void copy(unsigned char* tile, int64_t column, int left, const ForwardArguments<T>& p) const {
    const int chunk = threadIdx.x % chunks, value = chunk * chunk_values<T>;
#pragma unroll
    for (int part = 0; part < G; ++part)
#pragma unroll
      for (int i = 0; i < units; ++i) {
        unsigned char* const to = tile + place(part * Tile::columns + threadIdx.x / chunks + i * Tile::rows_at_once, chunk);
        const T* const from = rows[i] ? rows[i] + part * int64_t(p.columns + p.dim) + column + value : p.x0;
        copy_chunk(to, from, rows[i] != nullptr, left - value, p.vector);
      }
  }
};

// Copies rows from `first` on of a matrix [batch, columns], from `column` on; what is not there becomes zeros.
template <typename Tile, typename T = typename Tile::Value>
DCRNN_DEVICE void copy_rows(unsigned char* tile, const T* matrix, int64_t first, int64_t batch, int64_t stride, int column, int columns,
                            bool vector) {
  const int chunk = threadIdx.x % chunks, value = column + chunk * chunk_values<T>;
#pragma unroll
  for (int i = 0; i < Tile::rows / Tile::rows_at_once; ++i) {
    const int row = threadIdx.x / chunks + i * Tile::rows_at_once;
    const bool present = first + row < batch;
    copy_chunk(tile + place(row, chunk), present ? matrix + (first + row) * stride + value : matrix, present, columns - value, vector);
  }
}

template <typename T>
constexpr int stages_of(int values) {
  return (values + row_values<T> - 1) / row_values<T>;
}

template <typename M, int G, typename Tile_, int stages_, bool all_steps_>
struct ForwardKernel {
  using Tile = Tile_;
  using T = typename M::Value;
  using A = accumulator<T>;
  static constexpr int stages = stages_, threads = Tile::threads, neighbours = 2 * Tile::blocks_n;
  static constexpr bool all_steps = all_steps_;
  static constexpr int left_bytes = Tile::rows * row_bytes, right_bytes = G * Tile::columns * row_bytes;
  static constexpr int bias_values = G * Tile::columns;
  // As many as a multiprocessor's registers allow without a spill: left alone, the compiler aims at more and spills a few.
  static constexpr int blocks_at_once = Tile::threads == 128 ? 3 : 1;

  // The pipeline's stages, the biases of two tiles of units and, for all steps, the states of two steps.
  static constexpr int64_t shared_bytes(int dim) {
    const int64_t states = all_steps ? int64_t(2) * stages_of<T>(dim) * left_bytes : 0;
    return stages * (left_bytes + right_bytes) + states + 2 * bias_values * static_cast<int>(sizeof(A));
  }

  const ForwardArguments<T>& p;
  unsigned char *pipeline, *states;
  A* biases;
  const int64_t task, first_row;
  const int first_unit, context_blocks, blocks, unit_tiles;

  DCRNN_DEVICE explicit ForwardKernel(const ForwardArguments<T>& arguments)
      : p(arguments),
        pipeline(shared_memory()),
        states(pipeline + stages * (left_bytes + right_bytes)),
        biases(reinterpret_cast<A*>(states + (all_steps ? 2 * stages_of<T>(p.dim) * left_bytes : 0))),
        task(blockIdx.y),
        first_row(int64_t(all_steps ? blockIdx.x : blockIdx.x / tiles(p.dim)) * Tile::rows),
        first_unit(all_steps ? 0 : int(blockIdx.x % tiles(p.dim)) * Tile::columns),
        context_blocks(stages_of<T>(p.columns)),
        blocks(context_blocks + stages_of<T>(p.dim)),
        unit_tiles(all_steps ? tiles(p.dim) : 1) {}

  static constexpr int tiles(int dim) { return (dim + Tile::columns - 1) / Tile::columns; }

  DCRNN_DEVICE unsigned char* left(int stage) const { return pipeline + stage * (left_bytes + right_bytes); }
  DCRNN_DEVICE unsigned char* right(int stage) const { return left(stage) + left_bytes; }
  DCRNN_DEVICE unsigned char* state(int which, int block) const { return states + (which * stages_of<T>(p.dim) + block) * left_bytes; }

  // Some neighbouring units of a state that lie in one chunk.
  using StatePack = Pack < T, neighbours<chunk_values<T> ? neighbours : chunk_values<T>>;
  static constexpr int pack_values = sizeof(StatePack) / sizeof(T);
  static_assert(neighbours % pack_values == 0 && chunk_values<T> % pack_values == 0);

  DCRNN_DEVICE unsigned char* state_pack(int which, int row, int unit) const {
    const int at = unit % row_values<T>;
    return state(which, unit / row_values<T>) + place(row, at / chunk_values<T>) + at % chunk_values<T> * static_cast<int>(sizeof(T));
  }

  // What is loaded next, in the order of the multiplications.
  struct Position {
    int step = 0, unit_tile = 0, block = 0;
    DCRNN_DEVICE void advance(const ForwardKernel& kernel) {
      if (++block < kernel.blocks) return;
      block = 0;
      if (++unit_tile < kernel.unit_tiles) return;
      unit_tile = 0, ++step;
    }
  };

  DCRNN_DEVICE int weight_step(const Position& at) const { return p.weight.banks.weight_steps > 1 ? p.first_step + at.step : 0; }

  DCRNN_DEVICE void load_stage(int stage, const Position& at, UnitRows<Tile, G>& rows) const {
    if (at.block == 0) rows.find(p, task, weight_step(at), first_unit + at.unit_tile * Tile::columns);
    const bool upstream = at.block < context_blocks;
    const int column = (upstream ? at.block : at.block - context_blocks) * row_values<T>, columns = upstream ? p.columns : p.dim;
    rows.copy(right(stage), (upstream ? 0 : p.columns) + column, columns - column, p);
    if (upstream)
      copy_rows<Tile>(left(stage), p.context + at.step * p.batch * p.columns, first_row, p.batch, columns, column, columns, p.vector);
    else if (!all_steps)
      copy_rows<Tile>(left(stage), p.state + task * p.state_stride, first_row, p.batch, columns, column, columns, p.vector);
  }

  // The biases of a tile of units.
  DCRNN_DEVICE void load_biases(A* to, const Position& at) const {
    for (int i = threadIdx.x; i < bias_values; i += threads) {
      const int unit = first_unit + at.unit_tile * Tile::columns + i % Tile::columns;
      if (unit < p.dim) to[i] = widen(p.bias.row(task, weight_step(at), unit, G)[i / Tile::columns]);
    }
  }

  // Computes h' from the sums, for this thread's units of a tile.
  DCRNN_DEVICE void finish(const typename Tile::Sums (&sums)[G], const A* bias, const Position& at) const {
    const int local_unit = Tile::first_column() + Tile::lane() % 4 * neighbours;
    const int unit = first_unit + at.unit_tile * Tile::columns + local_unit, count = p.dim - unit;
    if (count <= 0) return;
    const bool last = at.step == p.steps - 1, kept = last || p.every_state;
#pragma unroll
    for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
      const int local_row = Tile::first_row() + 8 * half_block + Tile::lane() / 4;
      const int64_t row = first_row + local_row, from = row * p.dim + unit;
      if (row >= p.batch) continue;
      A x0[neighbours], h[neighbours], a[neighbours], g[neighbours];
      load(x0, p.x0 + from, count, p.vector);
      if constexpr (all_steps) {
#pragma unroll
        for (int i = 0; i < neighbours; i += pack_values) {
          const auto pack = read_shared<StatePack>(state_pack(at.step % 2, local_row, unit + i));
#pragma unroll
          for (int k = 0; k < pack_values; ++k) h[i + k] = widen(pack.values[k]);
        }
      } else {
        load(h, p.state + task * p.state_stride + from, count, p.vector);
      }
      if (p.start && at.step == 0) store(p.start + task * p.start_stride + from, x0, count, p.vector);
#pragma unroll
      for (int i = 0; i < neighbours; ++i) {
        a[i] = Tile::sum_of(sums[0], half_block, i) + bias[local_unit + i];
        g[i] = G == 2 ? sigmoid(Tile::sum_of(sums[G - 1], half_block, i) + bias[(G - 1) * Tile::columns + local_unit + i]) : A(1);
        h[i] = next_state<A>(h[i], x0[i], a[i], g[i]);
      }
      if (p.activations) {
        T* const activations = p.activations + task * p.activations_stride + at.step * p.activations_step + row * G * p.dim + unit;
        store(activations, a, count, p.vector);
        if constexpr (G == 2) store(activations + p.dim, g, count, p.vector);
      }
      if (kept) store(p.next + task * p.next_stride + (p.every_state ? at.step * p.next_step : 0) + from, h, count, p.vector);
      if constexpr (all_steps)
#pragma unroll
        for (int i = 0; i < neighbours; i += pack_values) {
          StatePack pack;
#pragma unroll
          for (int k = 0; k < pack_values; ++k) round_to(pack.values[k], i + k < count ? h[i + k] : A(0));  // the padding stays zero
          write_shared(state_pack((at.step + 1) % 2, local_row, unit + i), pack);
        }
    }
  }

  // Loads x0 into the first buffer. The padding of both must be zeros: the product multiplies it by zeros, and NaN would stay NaN.
  DCRNN_DEVICE void load_states() const {
    for (int block = 0; block < stages_of<T>(p.dim); ++block) {
      copy_rows<Tile>(state(0, block), p.x0, first_row, p.batch, p.dim, block * row_values<T>, p.dim, p.vector);
      copy_rows<Tile>(state(1, block), p.x0, p.batch, p.batch, p.dim, 0, p.dim, p.vector);
    }
  }

  DCRNN_DEVICE void run() const {
    UnitRows<Tile, G> rows;
    Position loading, at;
    const int total = p.steps * unit_tiles * blocks;
    if constexpr (all_steps) load_states();
    for (int stage = 0; stage < stages - 1; ++stage) {
      if (stage < total) {
        load_stage(stage, loading, rows);
        loading.advance(*this);
      }
      commit_copies();
    }
    typename Tile::Sums sums[G] = {};
    A* bias = biases;
    for (int i = 0; i < total; ++i) {
      if (at.block == 0) load_biases(bias, at);
      wait_for_copies<stages - 2>();
      __syncthreads();
      if (i + stages - 1 < total) {
        load_stage((i + stages - 1) % stages, loading, rows);
        loading.advance(*this);
      }
      commit_copies();
      const int stage = i % stages;
      const bool resident = all_steps && at.block >= context_blocks;
      multiply_by_rows<M, Tile, G>(sums, resident ? state(at.step % 2, at.block - context_blocks) : left(stage), right(stage));
      if (at.block == blocks - 1) {
        finish(sums, bias, at);
        bias = bias == biases ? biases + bias_values : biases;
#pragma unroll
        for (int part = 0; part < G; ++part) Tile::clear(sums[part]);
      }
      at.advance(*this);
    }
    wait_for_copies<0>();
  }
};

template <typename Kernel>
__global__ __launch_bounds__(Kernel::threads, Kernel::blocks_at_once) void cross_rnn_forward(
    const __grid_constant__ ForwardArguments<typename Kernel::T> arguments) {
  Kernel(arguments).run();
}

}  // namespace dcrnn_fast::cuda
