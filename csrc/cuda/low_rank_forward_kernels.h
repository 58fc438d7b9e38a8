// The kernel of the low-rank cell's forward: all steps of a tile of rows in one launch. Letters as in cross_rnn_forward_kernels.h, r for
// the rank. With u = [context, h]:
//
//     z = P u, y = Q u        a = W z + b        g = sigmoid(V y + c)        h' = h + g * x0 * a
//
// State, z and y stay on the chip in the tensors' dtype, where they are left operands of the products; where they have no room there, they
// go through global memory. Sums, a, g and h' before it is rounded are of the accumulator's type.
#pragma once

#include "../cell.h"
#include "low_rank_pipeline.h"

namespace dcrnn_fast::cuda {

// Strides are in values, from task to task and from step to step.
template <typename T>
struct LowRankForwardArguments : LowRankArguments<T> {
  const T* context;               // of each step [B, C], or null
  T *next, *activations, *start;  // of each task [B, D]; z|y [B, G, r] or null; [B, D] or null: a copy of x0 goes there
  int64_t next_stride, next_step, start_stride, activations_stride, activations_step;
  int steps;
  bool every_state;     // next takes every state, not the last one alone
  bool given;           // z and y are read from activations
  bool ends_projected;  // the last step ends with z and y
};

template <typename M, int G, typename Tile_, int stages_>
struct LowRankForward : LowRankTile<M, G, Tile_, stages_> {
  using Base = LowRankTile<M, G, Tile_, stages_>;
  using Base::columns, Base::left_bytes, Base::neighbours, Base::right_bytes, Base::stage_values, Base::stages, Base::threads;
  using typename Base::A;
  using typename Base::Operand;
  using typename Base::Sizes;
  using typename Base::Sums;
  using typename Base::T;
  using typename Base::Tile;
  static constexpr int blocks_at_once = threads == 128 ? 2 : 1;

  // The weights' stages and, with a context, as many of its rows; then state, z and y, or one block of such an operand for each vector.
  static constexpr int64_t shared_bytes(const Sizes& sizes, bool on_chip, int64_t slots, int depth) {
    const int64_t operands = on_chip ? sizes.state_blocks + int64_t(G) * sizes.rank_blocks : G;
    return slots * right_bytes + ((sizes.context_blocks ? depth : 0) + operands) * left_bytes;
  }

  const LowRankForwardArguments<T>& p;
  const Sizes sizes;
  const int blocks;  // of the projections' inner dimension
  const int64_t task, first_row, project, in_step;
  unsigned char *const weights, *const upstream, *const state, *const ranks;

  DCRNN_DEVICE explicit LowRankForward(const LowRankForwardArguments<T>& arguments)
      : p(arguments),
        sizes(p.dim, p.columns, p.rank),
        blocks(sizes.context_blocks + sizes.state_blocks),
        task(blockIdx.y),
        first_row(int64_t(blockIdx.x) * Tile::rows),
        project(p.given ? 0 : sizes.project()),
        in_step(project + sizes.units()),
        weights(shared_memory()),
        upstream(weights + (p.resident ? in_step : p.depth) * right_bytes),
        state(upstream + (p.columns ? p.depth : 0) * left_bytes),
        ranks(state + (p.on_chip ? sizes.state_blocks : 0) * left_bytes) {}

  // A stage, in the order of the products.
  struct Position {
    int step = 0, tile = 0, block = 0;
    int64_t stage = 0;

    DCRNN_DEVICE bool projects(const LowRankForward& kernel) const { return stage < kernel.project; }
    DCRNN_DEVICE bool is_last(const LowRankForward& kernel) const {
      return block == (projects(kernel) ? kernel.blocks : kernel.sizes.rank_blocks) - 1;
    }
    DCRNN_DEVICE void advance(const LowRankForward& kernel) {
      const bool ends = is_last(kernel);
      ++block, ++stage;
      if (ends) block = 0, ++tile;
      if (stage == kernel.project) tile = 0;
      if (stage == kernel.in_step) stage = 0, tile = 0, ++step;
    }
  };

  DCRNN_DEVICE unsigned char* slot(const Position& at, int ring) const { return weights + (p.resident ? at.stage : ring) * right_bytes; }

  DCRNN_DEVICE void load_stage(const Position& at, int ring) const {
    const bool projects = at.projects(*this);
    if (!p.resident || at.step == 0) {
      const int64_t stage = p.weight_step(task, at.step) * p.stages_a_step + (projects ? sizes.units() + at.stage : at.stage - project);
      Base::copy_weights(slot(at, ring), p.weights + stage * stage_values, projects && sizes.halved ? 1 : G);
    }
    if (projects && at.block < sizes.context_blocks)
      copy_rows<Tile>(upstream + ring * left_bytes, p.context + at.step * p.batch * p.columns, first_row, p.batch, p.columns,
                      at.block * row_values<T>, p.columns, p.vector);
  }

  // The task's state before a step, in global memory.
  DCRNN_DEVICE const T* state_before(int step) const {
    return step == 0 ? p.x0 : p.next + task * p.next_stride + (p.every_state ? (step - 1) * p.next_step : 0);
  }

  DCRNN_DEVICE T* activations_of(int step) const {
    return p.activations ? p.activations + task * p.activations_stride + step * p.activations_step : nullptr;
  }

  // The left operand of a stage. Of z and y, that of the first vector; the second's lies `rank_stride` further.
  DCRNN_DEVICE const unsigned char* left_of(const Position& at, int ring) const {
    if (!at.projects(*this)) {
      if (p.on_chip) return ranks + at.block * left_bytes;
      Base::fetch(ranks, activations_of(at.step), first_row, p.batch, G * p.rank, at.block, p.rank, G, p.rank, p.rank_vector);
      return ranks;
    }
    if (at.block < sizes.context_blocks) return upstream + ring * left_bytes;
    const int block = at.block - sizes.context_blocks;
    if (p.on_chip) return state + block * left_bytes;
    Base::fetch(state, state_before(at.step), first_row, p.batch, p.dim, block, p.dim, 1, 0, p.vector);
    return state;
  }

  DCRNN_DEVICE void multiply(Sums (&sums)[G], const Position& at, int ring) const {
    const unsigned char *const left = left_of(at, ring), *const right = slot(at, ring);
    const bool projects = at.projects(*this);
    if (projects && !sizes.halved) {
      multiply_by_rows<M, Tile, G>(sums, left, right);
      return;
    }
    const int slices = projects ? chunks / 2 : Base::slices_from(at.block * row_values<T>, p.rank);
    const int rank_stride = p.on_chip ? sizes.rank_blocks * left_bytes : left_bytes;
#pragma unroll
    for (int part = 0; part < G; ++part)
      if (part == 0 || !projects)
        multiply_by_rows<M, Tile>(sums[part], left + part * rank_stride, right + part * columns * row_bytes, slices);
  }

  // Computes h' from the sums, for this thread's units of a tile.
  DCRNN_DEVICE void finish_units(const Sums (&sums)[G], const Position& at) const {
    const int unit = at.tile * columns + Operand::first_column(), count = p.dim - unit;
    if (count <= 0) return;
    const bool kept = at.step == p.steps - 1 || p.every_state || !p.on_chip;
    const int64_t padded = sizes.unit_tiles * columns, step = p.weight_step(task, at.step);
    A bias[G][neighbours];
#pragma unroll
    for (int part = 0; part < G; ++part) load(bias[part], p.biases + (step * G + part) * padded + unit, neighbours, true);
#pragma unroll
    for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
      const int64_t row = first_row + Operand::row(half_block), from = row * p.dim + unit;
      if (row >= p.batch) continue;
      A x0[neighbours], h[neighbours];
      load(x0, p.x0 + from, count, p.vector);
      if (p.on_chip)
        Operand::read(h, state, Operand::row(half_block), unit);
      else
        load(h, state_before(at.step) + from, count, p.vector);
      if (p.start && at.step == 0) store(p.start + task * p.start_stride + from, x0, count, p.vector);
#pragma unroll
      for (int i = 0; i < neighbours; ++i) {
        const A a = Tile::sum_of(sums[0], half_block, i) + bias[0][i];
        const A g = G == 2 ? sigmoid(Tile::sum_of(sums[G - 1], half_block, i) + bias[G - 1][i]) : A(1);
        h[i] = next_state<A>(h[i], x0[i], a, g);
      }
      if (kept) store(p.next + task * p.next_stride + (p.every_state ? at.step * p.next_step : 0) + from, h, count, p.vector);
      if (p.on_chip) Operand::write(state, Operand::row(half_block), unit, h, count);
    }
  }

  DCRNN_DEVICE void run() const {
    Position at;
    Sums sums[G] = {};
    if (p.on_chip) Operand::copy(state, p.x0, first_row, p.batch, p.dim, p.dim, p.vector);
    pipelined<stages>(*this, Position{}, p.steps * in_step - (p.ends_projected ? sizes.units() : 0), p.depth, [&](int ring) {
      if (p.given && p.on_chip && at.stage == 0) {
        for (int part = 0; part < G; ++part)
          Operand::copy(ranks + part * sizes.rank_blocks * left_bytes, activations_of(at.step) + part * p.rank, first_row, p.batch,
                        G * p.rank, p.rank, p.rank_vector);
        Base::wait_for_operands();
      }
      multiply(sums, at, ring);
      if (at.is_last(*this)) {
        if (at.projects(*this))
          Base::finish_rank(sums, sizes, at.tile, p.on_chip ? ranks : nullptr, activations_of(at.step), first_row, p.batch, p.rank,
                            p.rank_vector);
        else
          finish_units(sums, at);
        clear<Tile>(sums);
      }
      at.advance(*this);
    });
  }
};

template <typename Kernel>
__global__ __launch_bounds__(Kernel::threads, Kernel::blocks_at_once) void low_rank_forward_steps(
    const __grid_constant__ LowRankForwardArguments<typename Kernel::T> arguments) {
  Kernel(arguments).run();
}

}  // namespace dcrnn_fast::cuda
