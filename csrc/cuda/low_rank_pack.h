// Gathers the weights of the low-rank cell from both banks, once a call, in the order in which its kernels read them: stages of G *
// `columns` rows of 128 bytes, each row along the inner dimension of a product. What a stage has beyond the matrix is zero.
#pragma once

#include <algorithm>

#include "cross_rnn.h"
#include "pipeline.h"

namespace dcrnn_fast::cuda {

inline constexpr int pack_threads = 256, most_matrices = 4;

// One dimension of a matrix, padded: the context's columns, if it has any, to whole tiles or blocks, and so the others after them.
struct PackedAxis {
  int context, context_padded, others;
  // the position in the matrix, or -1 in the padding
  DCRNN_DEVICE int at(int i) const {
    if (i < context_padded) return i < context ? i : -1;
    return i - context_padded < others ? context + i - context_padded : -1;
  }
};

// A matrix of a step and task, for each of G vectors. The outer dimension, a product's columns, has tiles; the inner one has blocks.
template <typename T>
struct PackedMatrix {
  BankRows<T> bank;
  int size;         // values of a vector in a row
  bool transposed;  // the inner dimension counts the bank's rows
  bool halved;      // both vectors lie side by side in one tile
  PackedAxis outer, inner;
  int tiles, blocks;
  int64_t first_stage;
};

template <typename T>
struct PackArguments {
  using A = accumulator<T>;
  PackedMatrix<T> matrices[most_matrices];
  int count, gates, columns, warp_blocks;  // blocks of 8 columns of a warp
  int64_t stages;                          // of a step
  T* to;                                   // [T, W, stages, gates, columns, row_values]
  BankRows<T> bias;
  int padded_dim;
  A* biases;                                                                                 // [T, W, gates, padded_dim]
  DCRNN_DEVICE int64_t steps() const { return bias.banks.tasks * bias.banks.weight_steps; }  // of all tasks
};

template <typename T>
DCRNN_DEVICE void pack_chunk(const PackArguments<T>& p, const PackedMatrix<T>& m, int64_t item) {
  const int chunk = item % chunks, column = item / chunks % p.columns, part = item / chunks / p.columns % p.gates;
  const int64_t stage = item / chunks / p.columns / p.gates, in_step = int64_t(m.tiles) * m.blocks, step = stage / in_step;
  if (step >= p.steps()) return;
  const int tile = stage % in_step / m.blocks, block = stage % in_step % m.blocks, unit = unit_of_column(column, p.warp_blocks);
  if (m.halved && part > 0) return;  // nobody reads it
  const int half = p.columns / 2, gate = m.halved ? unit / half : part;
  const int outer = m.outer.at(m.halved ? unit % half : tile * p.columns + unit);
  Pack<T, chunk_values<T>> out{};
#pragma unroll
  for (int i = 0; i < chunk_values<T>; ++i) {
    const int inner = m.inner.at(block * row_values<T> + chunk * chunk_values<T> + i);
    if (outer < 0 || inner < 0) continue;
    const int row = m.transposed ? inner : outer, at = m.transposed ? outer : inner;
    const int64_t weight_steps = m.bank.banks.weight_steps, size = int64_t(p.gates) * m.size;
    out.values[i] = m.bank.row(step / weight_steps, step % weight_steps, row, size)[int64_t(gate) * m.size + at];
  }
  const int64_t row = ((step * p.stages + m.first_stage + stage % in_step) * p.gates + part) * p.columns + column;
  *reinterpret_cast<Pack<T, chunk_values<T>>*>(p.to + row * row_values<T> + chunk * chunk_values<T>) = out;
}

template <typename T>
DCRNN_DEVICE void pack_bias(const PackArguments<T>& p, int64_t item) {
  const int unit = item % p.padded_dim, gate = item / p.padded_dim % p.gates;
  const int64_t step = item / p.padded_dim / p.gates;
  if (step >= p.steps()) return;
  const int64_t weight_steps = p.bias.banks.weight_steps;
  const bool present = unit < p.bias.banks.rows();
  p.biases[item] = present ? widen(p.bias.row(step / weight_steps, step % weight_steps, unit, p.gates)[gate]) : accumulator<T>(0);
}

// In y, the grid has the matrices, then the biases.
template <typename T>
__global__ __launch_bounds__(pack_threads) void low_rank_pack(const __grid_constant__ PackArguments<T> p) {
  const int64_t item = int64_t(blockIdx.x) * pack_threads + threadIdx.x;
  if (int(blockIdx.y) < p.count)
    pack_chunk(p, p.matrices[blockIdx.y], item);
  else
    pack_bias(p, item);
}

// The packed weights of a call, in the order of the stages of kernels with the base `Base`.
template <typename Base, typename T = typename Base::T>
class PackedWeights {
  using A = accumulator<T>;

 public:
  const typename Base::Sizes sizes;
  const int64_t stages;  // of a step
  std::shared_ptr<T> weights;
  std::shared_ptr<A> biases;

  // For a forward that projects or is given z and y, or for a kernel that goes back. The units' stages come first, the projections' last.
  PackedWeights(const LowRankCell<T>& cell, bool projects, bool goes_back)
      : sizes(cell.dim, cell.columns, cell.rank()),
        stages(sizes.units() + (goes_back ? sizes.ranks() + sizes.inputs() : 0) + (projects ? sizes.project() : 0)) {
    PackArguments<T> a{};
    a.gates = cell.gates, a.columns = Base::columns, a.warp_blocks = Base::Tile::blocks_n, a.stages = stages;
    a.bias = cell.bias, a.padded_dim = sizes.unit_tiles * Base::columns;
    const int64_t steps = int64_t(cell.tasks()) * cell.weight_steps();
    weights = cell.gpu.template memory<T>(steps * stages * Base::stage_values), a.to = weights.get();
    biases = cell.gpu.template memory<A>(steps * cell.gates * a.padded_dim), a.biases = biases.get();

    int64_t items = steps * cell.gates * a.padded_dim;
    const auto add = [&](PackedMatrix<T> matrix, const PackedAxis& outer, const PackedAxis& inner, int tiles, int blocks, int64_t stage) {
      matrix.outer = outer, matrix.inner = inner, matrix.tiles = tiles, matrix.blocks = blocks, matrix.first_stage = stage;
      a.matrices[a.count++] = matrix;
      items = std::max(items, steps * tiles * blocks * cell.gates * Base::columns * chunks);
    };
    PackedMatrix<T> weight{}, projection{};
    weight.bank = cell.weight, weight.size = cell.rank(), projection.bank = cell.projection, projection.size = cell.columns + cell.dim;
    const PackedAxis ranks{0, 0, cell.rank()}, units{0, 0, cell.dim};
    add(weight, units, ranks, sizes.unit_tiles, sizes.rank_blocks, 0);
    if (goes_back) {
      weight.transposed = projection.transposed = true, weight.halved = sizes.halved;
      add(weight, ranks, units, sizes.rank_tiles, sizes.unit_tiles * Base::column_blocks, sizes.units());
      const PackedAxis inputs{cell.columns, sizes.context_tiles * Base::columns, cell.dim};
      add(projection, inputs, ranks, sizes.context_tiles + sizes.unit_tiles, sizes.rank_blocks, sizes.units() + sizes.ranks());
    }
    if (projects) {
      projection.transposed = false, projection.halved = sizes.halved;
      const PackedAxis inputs{cell.columns, sizes.context_blocks * row_values<T>, cell.dim};
      add(projection, ranks, inputs, sizes.rank_tiles, sizes.context_blocks + sizes.state_blocks, sizes.units());
    }
    launch(low_rank_pack<T>, Grid{divide_up(items, pack_threads), a.count + 1}, pack_threads, 0, cell.gpu.stream, a);
  }
};

}  // namespace dcrnn_fast::cuda
