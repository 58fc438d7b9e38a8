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
#include "cross_rnn.h"
#include "pipeline.h"

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

template <typename M, int G, typename Tile_, int stages_, bool all_steps_>
struct ForwardKernel {
  using Tile = Tile_;
  using T = typename M::Value;
  using A = accumulator<T>;
  using State = Resident<Tile>;
  static constexpr int stages = stages_, threads = Tile::threads, neighbours = State::neighbours;
  static constexpr bool all_steps = all_steps_;
  static constexpr int left_bytes = Tile::rows * row_bytes, right_bytes = G * Tile::columns * row_bytes;
  static constexpr int units = Tile::columns / Tile::rows_at_once;  // whose weights this thread copies, of a tile
  static_assert(units * Tile::rows_at_once == Tile::columns);
  // As many as a multiprocessor's registers allow without a spill: left alone, the compiler aims at more and spills a few.
  static constexpr int blocks_at_once = Tile::threads == 128 ? 3 : 1;

  // The pipeline's stages and, for all steps, the states of two steps.
  static constexpr int64_t shared_bytes(int dim) {
    return stages * (left_bytes + right_bytes) + (all_steps ? int64_t(2) * stages_of<T>(dim) * left_bytes : 0);
  }

  const ForwardArguments<T>& p;
  unsigned char *pipeline, *states;
  const int64_t task, first_row;
  const int first_unit, context_blocks, blocks, unit_tiles;

  DCRNN_DEVICE explicit ForwardKernel(const ForwardArguments<T>& arguments)
      : p(arguments),
        pipeline(shared_memory()),
        states(pipeline + stages * (left_bytes + right_bytes)),
        task(blockIdx.y),
        first_row(int64_t(all_steps ? blockIdx.x : blockIdx.x / tiles(p.dim)) * Tile::rows),
        first_unit(all_steps ? 0 : int(blockIdx.x % tiles(p.dim)) * Tile::columns),
        context_blocks(stages_of<T>(p.columns)),
        blocks(context_blocks + stages_of<T>(p.dim)),
        unit_tiles(all_steps ? tiles(p.dim) : 1) {}

  static constexpr int tiles(int dim) { return (dim + Tile::columns - 1) / Tile::columns; }

  DCRNN_DEVICE unsigned char* left(int stage) const { return pipeline + stage * (left_bytes + right_bytes); }
  DCRNN_DEVICE unsigned char* right(int stage) const { return left(stage) + left_bytes; }
  DCRNN_DEVICE unsigned char* state(int step) const { return states + step % 2 * stages_of<T>(p.dim) * left_bytes; }

  // A stage, in the order of the products, and the weight rows that this thread copies for its tile of units: null past the last unit.
  struct Position {
    int step = 0, unit_tile = 0, block = 0;
    const T* rows[units];

    DCRNN_DEVICE void advance(const ForwardKernel& kernel) {
      if (++block < kernel.blocks) return;
      block = 0;
      if (++unit_tile < kernel.unit_tiles) return;
      unit_tile = 0, ++step;
    }
  };

  DCRNN_DEVICE int weight_step(const Position& at) const { return p.weight.banks.weight_steps > 1 ? p.first_step + at.step : 0; }

  DCRNN_DEVICE void load_stage(Position& at, int stage) const {
    const int inner = p.columns + p.dim, local_row = threadIdx.x / chunks, chunk = threadIdx.x % chunks;
    if (at.block == 0)
#pragma unroll
      for (int i = 0; i < units; ++i) {
        const int local_unit = unit_of_column(local_row + i * Tile::rows_at_once, Tile::blocks_n);
        const int unit = first_unit + at.unit_tile * Tile::columns + local_unit;
        at.rows[i] = unit < p.dim ? p.weight.row(task, weight_step(at), unit, G * int64_t(inner)) : nullptr;
      }
    const bool upstream = at.block < context_blocks;
    const int column = (upstream ? at.block : at.block - context_blocks) * row_values<T>, columns = upstream ? p.columns : p.dim;
    const int value = column + chunk * chunk_values<T>, in_row = (upstream ? 0 : p.columns) + value;
#pragma unroll
    for (int part = 0; part < G; ++part)
#pragma unroll
      for (int i = 0; i < units; ++i) {
        unsigned char* const to = right(stage) + place(part * Tile::columns + local_row + i * Tile::rows_at_once, chunk);
        copy_chunk(to, at.rows[i] ? at.rows[i] + part * int64_t(inner) + in_row : p.x0, at.rows[i] != nullptr, columns - value, p.vector);
      }
    if (upstream)
      copy_rows<Tile>(left(stage), p.context + at.step * p.batch * p.columns, first_row, p.batch, columns, column, columns, p.vector);
    else if (!all_steps)
      copy_rows<Tile>(left(stage), p.state + task * p.state_stride, first_row, p.batch, columns, column, columns, p.vector);
  }

  // Computes h' from the sums, for this thread's units of a tile.
  DCRNN_DEVICE void finish(const typename Tile::Sums (&sums)[G], const Position& at) const {
    const int unit = first_unit + at.unit_tile * Tile::columns + State::first_column(), count = p.dim - unit;
    if (count <= 0) return;
    const bool kept = at.step == p.steps - 1 || p.every_state;
    A bias[G][neighbours] = {};
#pragma unroll
    for (int i = 0; i < neighbours; ++i)
#pragma unroll
      for (int part = 0; part < G; ++part)
        if (i < count) bias[part][i] = widen(p.bias.row(task, weight_step(at), unit + i, G)[part]);
#pragma unroll
    for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
      const int64_t row = first_row + State::row(half_block), from = row * p.dim + unit;
      if (row >= p.batch) continue;
      A x0[neighbours], h[neighbours], a[neighbours], g[neighbours];
      load(x0, p.x0 + from, count, p.vector);
      if constexpr (all_steps)
        State::read(h, state(at.step), State::row(half_block), unit);
      else
        load(h, p.state + task * p.state_stride + from, count, p.vector);
      if (p.start && at.step == 0) store(p.start + task * p.start_stride + from, x0, count, p.vector);
#pragma unroll
      for (int i = 0; i < neighbours; ++i) {
        a[i] = Tile::sum_of(sums[0], half_block, i) + bias[0][i];
        g[i] = G == 2 ? sigmoid(Tile::sum_of(sums[G - 1], half_block, i) + bias[G - 1][i]) : A(1);
        h[i] = next_state<A>(h[i], x0[i], a[i], g[i]);
      }
      if (p.activations) {
        T* const activations = p.activations + task * p.activations_stride + at.step * p.activations_step + row * G * p.dim + unit;
        store(activations, a, count, p.vector);
        if constexpr (G == 2) store(activations + p.dim, g, count, p.vector);
      }
      if (kept) store(p.next + task * p.next_stride + (p.every_state ? at.step * p.next_step : 0) + from, h, count, p.vector);
      if constexpr (all_steps) State::write(state(at.step + 1), State::row(half_block), unit, h, count);
    }
  }

  DCRNN_DEVICE void run() const {
    Position at;
    if constexpr (all_steps) {
      State::copy(state(0), p.x0, first_row, p.batch, p.dim, p.dim, p.vector);
      State::copy(state(1), p.x0, p.batch, p.batch, p.dim, p.dim, p.vector);  // zeros: a product multiplies the padding by zeros
    }
    typename Tile::Sums sums[G] = {};
    pipelined<stages>(*this, Position{}, p.steps * unit_tiles * blocks, stages, [&](int stage) {
      const bool resident = all_steps && at.block >= context_blocks;
      const unsigned char* const operand = resident ? state(at.step) + (at.block - context_blocks) * left_bytes : left(stage);
      multiply_by_rows<M, Tile, G>(sums, operand, right(stage));
      if (at.block == blocks - 1) {
        finish(sums, at);
        clear<Tile>(sums);
      }
      at.advance(*this);
    });
  }
};

template <typename Kernel>
__global__ __launch_bounds__(Kernel::threads, Kernel::blocks_at_once) void cross_rnn_forward(
    const __grid_constant__ ForwardArguments<typename Kernel::T> arguments) {
  Kernel(arguments).run();
}

}  // namespace dcrnn_fast::cuda
