// Which matrices of the low-rank cell are packed, and where.
#pragma once

#include "low_rank.h"
#include "low_rank_pack_kernels.h"

namespace dcrnn_fast::cuda {

// The packed weights of a call, in the order of the stages of kernels with the base `Base`.
template <typename Base, typename T = typename Base::T>
class PackedWeights {
  using A = accumulator<T>;
  using Sizes = typename Base::Sizes;

 public:
  const int64_t project_stage, stages;  // where the projections' stages start, and how many stages a step has

  // For a kernel that multiplies by the projections, and for one that goes back.
  PackedWeights(const LowRankCell<T>& cell, bool projects, bool goes_back)
      : PackedWeights(cell, Sizes(cell.dim, cell.columns, cell.rank()), projects, goes_back) {}

  template <typename Arguments>
  void fill(Arguments& a) const {
    a.weights = weights_.get(), a.biases = biases_.get(), a.stages_a_step = stages;
  }

 private:
  PackedWeights(const LowRankCell<T>& cell, const Sizes& sizes, bool projects, bool goes_back)
      : project_stage(sizes.units() + (goes_back ? sizes.ranks() + sizes.inputs() : 0)),
        stages(project_stage + (projects ? sizes.project() : 0)) {
    PackArguments<T> a{};
    a.gates = cell.gates, a.columns = Base::columns, a.warp_blocks = Base::Tile::blocks_n, a.stages = stages;
    a.bias = cell.bias, a.padded_dim = sizes.unit_tiles * Base::columns;
    const int64_t steps = int64_t(cell.tasks()) * cell.weight_steps();
    weights_ = cell.gpu.template memory<T>(steps * stages * Base::stage_values), a.to = weights_.get();
    biases_ = cell.gpu.template memory<A>(steps * cell.gates * a.padded_dim), a.biases = biases_.get();

    int64_t items = steps * cell.gates * a.padded_dim;
    const auto add = [&](PackedMatrix<T> matrix, const PackedAxis& outer, const PackedAxis& inner, int tiles, int blocks, int64_t stage) {
      matrix.outer = outer, matrix.inner = inner, matrix.tiles = tiles, matrix.blocks = blocks, matrix.first_stage = stage;
      a.matrices[a.count++] = matrix;
      items = std::max(items, steps * tiles * blocks * cell.gates * Base::columns * chunks);
    };
    PackedMatrix<T> weight{.bank = cell.weight, .size = cell.rank()}, projection{.bank = cell.projection, .size = cell.columns + cell.dim};
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
      add(projection, ranks, inputs, sizes.rank_tiles, sizes.context_blocks + sizes.state_blocks, project_stage);
    }
    launch(low_rank_pack<T>, Grid{divide_up(items, pack_threads), a.count + 1}, pack_threads, 0, cell.gpu.stream, a);
  }

  std::shared_ptr<T> weights_;
  std::shared_ptr<A> biases_;
};

}  // namespace dcrnn_fast::cuda
