// The kernel of the low-rank cell's backward: all steps of a tile of rows, from the last to the first, in one launch. Letters as in
// low_rank_forward_kernels.h, and d = dL/dh' of a step:
//
//     a, g from z and y, as in the forward
//     da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
//     dz = W^T da            dy = V^T dq
//     du = P^T dz + Q^T dy   dh = d + du's columns of h           dcontext = du's columns of the context
//
// a, g, da and dq exist for one tile of units at a time: each tile's da and dq are the left operands of dz and dy at once, whose sums stay
// in registers until the last tile of units. If the rank has several tiles, the units' tiles are computed again for each of them. There are
// no atomics: sums over rows add one partial sum a warp.
#pragma once

#include "../cell.h"
#include "low_rank_pipeline.h"

namespace dcrnn_fast::cuda {

// Of the packed weights, those of a and q come first, then those of dz and dy, then those of du.
template <typename T>
struct LowRankBackwardArguments : LowRankArguments<T> {
  const T *grad, *activations;           // of each task [B, D], or with every_state [L + 1, B, D]; z|y [T, L, B, G, r]
  T *gradients, *rank_gradients, *d;     // da|dq [T, L, B, G, D], dz|dy [T, L, B, G, r], [T, B, D] if d is not on the chip
  accumulator<T>*dx0, *dcontext, *sums;  // [T, B, D] or null, [T, L, B, C] or null, [T, L, row tiles, warps_m, G, D]
  int64_t grad_stride;
  int steps;
  bool every_state;
};

template <typename M, int G, typename Tile_, int stages_>
struct LowRankBackward : LowRankTile<M, G, Tile_, stages_> {
  using Base = LowRankTile<M, G, Tile_, stages_>;
  using Base::column_blocks;
  using Base::columns, Base::left_bytes, Base::neighbours, Base::right_bytes, Base::stage_values, Base::stages, Base::threads;
  using typename Base::A;
  using typename Base::Operand;
  using typename Base::Sizes;
  using typename Base::Sums;
  using typename Base::T;
  using typename Base::Tile;
  static constexpr int blocks_at_once = 1;
  static constexpr int gradient_bytes = G * column_blocks * left_bytes;

  // The weights' stages; da and dq of a tile of units; then z, y, dz, dy and d, or one block of such an operand for each vector.
  static constexpr int64_t shared_bytes(const Sizes& sizes, bool on_chip, int64_t slots, int) {
    const int64_t operands = on_chip ? sizes.state_blocks + int64_t(2 * G) * sizes.rank_blocks : G;
    return slots * right_bytes + gradient_bytes + operands * left_bytes;
  }

  static constexpr int64_t stages_of_step(const Sizes& sizes) { return sizes.units() + sizes.ranks() + sizes.inputs(); }

  const LowRankBackwardArguments<T>& p;
  const Sizes sizes;
  const int first_tile;  // of the columns of u whose gradient is computed
  const int64_t task, first_row;
  unsigned char *const weights, *const gradients, *const ranks, *const rank_gradients, *const d;

  DCRNN_DEVICE explicit LowRankBackward(const LowRankBackwardArguments<T>& arguments)
      : p(arguments),
        sizes(p.dim, p.columns, p.rank),
        first_tile(p.dcontext ? 0 : sizes.context_tiles),
        task(blockIdx.y),
        first_row(int64_t(blockIdx.x) * Tile::rows),
        weights(shared_memory()),
        gradients(weights + (p.resident ? stages_of_step(sizes) : p.depth) * right_bytes),
        ranks(gradients + gradient_bytes),
        rank_gradients(ranks + (p.on_chip ? G * sizes.rank_blocks * left_bytes : 0)),
        d(rank_gradients + (p.on_chip ? G * sizes.rank_blocks * left_bytes : 0)) {}

  // A stage, in the order of the products. Of a step, first each tile of the rank goes through all tiles of units: each has `rank_blocks`
  // blocks for a and q, then `column_blocks` for dz and dy. Then come the tiles of u's columns.
  struct Position {
    int step, rank_tile = 0, tile = 0, block = 0;
    bool inputs = false;

    DCRNN_DEVICE bool units(const LowRankBackward& kernel) const { return !inputs && block < kernel.sizes.rank_blocks; }
    DCRNN_DEVICE bool starts_step() const { return !inputs && rank_tile == 0 && tile == 0 && block == 0; }

    DCRNN_DEVICE int64_t stage(const LowRankBackward& kernel) const {
      const Sizes& s = kernel.sizes;
      if (inputs) return s.units() + s.ranks() + int64_t(tile) * s.rank_blocks + block;
      if (units(kernel)) return int64_t(tile) * s.rank_blocks + block;
      return s.units() + (int64_t(rank_tile) * s.unit_tiles + tile) * column_blocks + block - s.rank_blocks;
    }

    DCRNN_DEVICE void advance(const LowRankBackward& kernel) {
      const Sizes& s = kernel.sizes;
      if (++block < s.rank_blocks + (inputs ? 0 : column_blocks)) return;
      block = 0, ++tile;
      if (!inputs) {
        if (tile < s.unit_tiles) return;
        tile = 0;
        if (++rank_tile < s.rank_tiles) return;
        tile = kernel.first_tile, inputs = true;
      }
      if (tile < kernel.end_tile(step)) return;
      rank_tile = 0, tile = 0, inputs = false, --step;
    }
  };

  // The last of u's columns count where an earlier step or dx0 needs them.
  DCRNN_DEVICE int end_tile(int step) const { return sizes.context_tiles + (step > 0 || p.dx0 ? sizes.unit_tiles : 0); }

  DCRNN_DEVICE int64_t of_step(int step) const { return task * p.steps + step; }
  DCRNN_DEVICE const T* activations_of(int step) const { return p.activations + of_step(step) * p.batch * G * p.rank; }
  DCRNN_DEVICE T* rank_gradients_of(int step) const { return p.rank_gradients + of_step(step) * p.batch * G * p.rank; }
  DCRNN_DEVICE const T* grad_of(int step) const {  // of the state after so many steps
    return p.grad + task * p.grad_stride + (p.every_state ? step * p.batch * p.dim : 0);
  }

  DCRNN_DEVICE unsigned char* slot(const Position& at, int ring) const {
    return weights + (p.resident ? at.stage(*this) : ring) * right_bytes;
  }

  DCRNN_DEVICE void load_stage(const Position& at, int ring) const {
    if (p.resident && at.step < p.steps - 1) return;
    const T* const from = p.weights + (p.weight_step(task, at.step) * p.stages_a_step + at.stage(*this)) * stage_values;
    Base::copy_weights(slot(at, ring), from, !at.inputs && !at.units(*this) && sizes.halved ? 1 : G);
  }

  DCRNN_DEVICE void load_ranks(int step) const {
    for (int part = 0; part < G; ++part)
      Operand::copy(ranks + part * sizes.rank_blocks * left_bytes, activations_of(step) + part * p.rank, first_row, p.batch, G * p.rank,
                    p.rank, p.rank_vector);
  }

  // sums[part] += left right^T. The left operand is z and y, or dz and dy: r columns a vector.
  DCRNN_DEVICE void multiply_ranks(Sums (&sums)[G], const Position& at, int ring) const {
    const unsigned char* left = (at.inputs ? rank_gradients : ranks) + (p.on_chip ? at.block : 0) * left_bytes;
    if (!p.on_chip)
      Base::fetch(ranks, at.inputs ? rank_gradients_of(at.step) : activations_of(at.step), first_row, p.batch, G * p.rank, at.block, p.rank,
                  G, p.rank, p.rank_vector);
    const int slices = Base::slices_from(at.block * row_values<T>, p.rank), stride = (p.on_chip ? sizes.rank_blocks : 1) * left_bytes;
#pragma unroll
    for (int part = 0; part < G; ++part)
      multiply_by_rows<M, Tile>(sums[part], left + part * stride, slot(at, ring) + part * columns * row_bytes, slices);
  }

  // dz and dy of a tile of the rank: adds the products of a block of units. Side by side in one tile, each warp's columns belong to one of
  // them.
  DCRNN_DEVICE void multiply_gradients(Sums (&sums)[G], const Position& at, int ring) const {
    const int block = at.block - sizes.rank_blocks, slices = Base::slices_from(at.tile * columns + block * row_values<T>, p.dim);
    const int first = sizes.halved && Tile::first_column() >= columns / 2 ? 1 : 0;
#pragma unroll
    for (int part = 0; part < G; ++part)
      if (part == 0 || !sizes.halved)
        multiply_by_rows<M, Tile>(sums[part], gradients + ((first + part) * column_blocks + block) * left_bytes,
                                  slot(at, ring) + part * columns * row_bytes, slices);
  }

  // From the sums of a tile of units: da and dq, to shared memory for the products; and once a step to global memory, with dx0 and the sums
  // over a warp's rows.
  DCRNN_DEVICE void finish_units(const Sums (&sums)[G], const Position& at) const {
    const int local = Operand::first_column(), unit = at.tile * columns + local, left = p.dim - unit;
    const bool once = at.rank_tile == 0, last = at.step == p.steps - 1;
    const int64_t padded = sizes.unit_tiles * columns;
    A bias[G][neighbours], column_sums[G][neighbours] = {};
#pragma unroll
    for (int part = 0; part < G; ++part)
      load(bias[part], p.biases + (p.weight_step(task, at.step) * G + part) * padded + unit, neighbours, true);
#pragma unroll
    for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
      const int local_row = Operand::row(half_block);
      const int64_t row = first_row + local_row, from = row * p.dim + unit;
      A gradient[G][neighbours] = {};
      if (row < p.batch && left > 0) {
        A x0[neighbours], d_[neighbours], dx0[neighbours] = {};
        load(x0, p.x0 + from, left, p.vector);
        if (p.on_chip)
          Operand::read(d_, d, local_row, unit);
        else
          load(d_, (last ? grad_of(p.steps) : p.d + task * p.batch * p.dim) + from, left, p.vector);
        A* const sum = once && p.dx0 ? p.dx0 + task * p.batch * p.dim + from : nullptr;
        if (sum && !last) load(dx0, sum, left, p.vector);
#pragma unroll
        for (int i = 0; i < neighbours; ++i) {
          const A a = Tile::sum_of(sums[0], half_block, i) + bias[0][i];
          const A g = G == 2 ? sigmoid(Tile::sum_of(sums[G - 1], half_block, i) + bias[G - 1][i]) : A(1);
          const StepGradient<A> found = step_gradient<A>(d_[i], x0[i], a, g);
          gradient[0][i] = found.da, dx0[i] += found.dx0;
          column_sums[0][i] += i < left ? found.da : A(0);
          if constexpr (G == 2) gradient[G - 1][i] = found.dq, column_sums[G - 1][i] += i < left ? found.dq : A(0);
        }
        if (sum) store(sum, dx0, left, p.vector);
        if (once)
#pragma unroll
          for (int part = 0; part < G; ++part)
            store(p.gradients + ((of_step(at.step) * p.batch + row) * G + part) * p.dim + unit, gradient[part], left, p.vector);
      }
#pragma unroll
      for (int part = 0; part < G; ++part)
        Operand::write(gradients + part * column_blocks * left_bytes, local_row, local, gradient[part], left);
    }
    if (!once) return;
    const int64_t of_warp = (of_step(at.step) * gridDim.x + blockIdx.x) * Tile::warps_m + threadIdx.x / 32 / Tile::warps_n;
#pragma unroll
    for (int part = 0; part < G; ++part) {
#pragma unroll
      for (int i = 0; i < neighbours; ++i)
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) column_sums[part][i] += __shfl_xor_sync(~0u, column_sums[part][i], distance);
      if (Tile::lane() < 4) store(p.sums + (of_warp * G + part) * p.dim + unit, column_sums[part], left, p.vector);
    }
  }

  // From du of a tile of columns: the context's gradient, or the state's, which in the first step belongs to x0.
  DCRNN_DEVICE void finish_inputs(const Sums (&sums)[G], const Position& at) const {
    const bool upstream = at.tile < sizes.context_tiles;
    const int column = (at.tile - (upstream ? 0 : sizes.context_tiles)) * columns + Operand::first_column();
    const int width = upstream ? p.columns : p.dim, left = width - column;
    if (left <= 0) return;
#pragma unroll
    for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
      const int local_row = Operand::row(half_block);
      const int64_t row = first_row + local_row, from = row * width + column;
      if (row >= p.batch) continue;
      A du[neighbours], more[neighbours];
#pragma unroll
      for (int i = 0; i < neighbours; ++i)
        du[i] = Tile::sum_of(sums[0], half_block, i) + (G == 2 ? Tile::sum_of(sums[G - 1], half_block, i) : A(0));
      if (upstream) {
        store(p.dcontext + of_step(at.step) * p.batch * width + from, du, left, p.vector);
        continue;
      }
      T* const global = p.on_chip ? nullptr : p.d + task * p.batch * p.dim + from;
      if (p.on_chip)
        Operand::read(more, d, local_row, column);
      else
        load(more, at.step == p.steps - 1 ? grad_of(p.steps) + from : global, left, p.vector);
      add(du, more);
      if (p.every_state) {
        load(more, grad_of(at.step) + from, left, p.vector);
        add(du, more);
      }
      if (at.step == 0) {
        A* const dx0 = p.dx0 + task * p.batch * p.dim + from;
        load(more, dx0, left, p.vector);
        add(du, more);
        store(dx0, du, left, p.vector);
      } else if (p.on_chip) {
        Operand::write(d, local_row, column, du, left);
      } else {
        store(global, du, left, p.vector);
      }
    }
  }

  DCRNN_DEVICE void run() const {
    Position at{p.steps - 1};
    Sums sums[G] = {}, rank_sums[G] = {};
    if (p.on_chip) {
      Operand::copy(d, grad_of(p.steps), first_row, p.batch, p.dim, p.dim, p.vector);
      load_ranks(p.steps - 1);
    }
    const int64_t of_units = int64_t(sizes.rank_tiles) * sizes.unit_tiles * (sizes.rank_blocks + column_blocks);
    const int64_t of_inputs = int64_t(end_tile(1) - first_tile) * (p.steps - 1) + end_tile(0) - first_tile;
    // z and y are copied in time for the next step if the pipeline waits for so many stages until then
    const bool waits = p.on_chip && (end_tile(1) - first_tile) * sizes.rank_blocks < p.depth;
    pipelined<stages>(*this, Position{p.steps - 1}, of_units * p.steps + of_inputs * sizes.rank_blocks, p.depth, [&](int ring) {
      if (waits && at.starts_step()) Base::wait_for_operands();
      if (p.on_chip && at.step > 0 && at.inputs && at.tile == first_tile && at.block == 0) load_ranks(at.step - 1);
      if (at.inputs || at.units(*this)) {
        multiply_ranks(sums, at, ring);
        if (at.block == sizes.rank_blocks - 1) {
          at.inputs ? finish_inputs(sums, at) : finish_units(sums, at);
          clear<Tile>(sums);
        }
      } else {
        multiply_gradients(rank_sums, at, ring);
        if (at.tile == sizes.unit_tiles - 1 && at.block == sizes.rank_blocks + column_blocks - 1) {
          Base::finish_rank(rank_sums, sizes, at.rank_tile, p.on_chip ? rank_gradients : nullptr, rank_gradients_of(at.step), first_row,
                            p.batch, p.rank, p.rank_vector);
          clear<Tile>(rank_sums);
        }
      }
      at.advance(*this);
    });
  }
};

template <typename Kernel>
__global__ __launch_bounds__(Kernel::threads, Kernel::blocks_at_once) void low_rank_backward_steps(
    const __grid_constant__ LowRankBackwardArguments<typename Kernel::T> arguments) {
  Kernel(arguments).run();
}

}  // namespace dcrnn_fast::cuda
