// Which matrices of the low-rank cell are packed, and where.
#pragma once

#include "low_rank.h"
#include "low_rank_pack_kernels.h"

namespace dcrnn_fast::cuda {

// Packs the matrices and biases that the arguments name.
template <typename T>
cudaError_t pack(const PackArguments<T>& arguments, cudaStream_t stream);

// The packed weights of a problem, in the order of the kernel's stages.
template <typename Base, typename T = typename Base::T>
class PackedWeights {
  using A = accumulator<T>;
  using Sizes = typename Base::Sizes;

 public:
  PackedWeights(const LowRankProblem<T>& p, bool projects, bool goes_back)
      : p_(p), sizes_(p.dim, p.columns, p.rank), projects_(projects), goes_back_(goes_back) {}

  // Where the projections' stages start, and the number of stages of a step.
  int64_t project_stage() const { return sizes_.units() + (goes_back_ ? sizes_.ranks() + sizes_.inputs() : 0); }
  int64_t stages() const { return project_stage() + (projects_ ? sizes_.project() : 0); }

  int64_t values() const { return p_.tasks * int64_t(p_.weight_steps()) * stages() * Base::stage_values; }
  int64_t bytes() const {
    return values() * int64_t(sizeof(T)) + p_.tasks * int64_t(p_.weight_steps()) * p_.gates * padded_dim() * int64_t(sizeof(A));
  }
  T* weights(void* memory) const { return static_cast<T*>(memory); }
  A* biases(void* memory) const { return reinterpret_cast<A*>(static_cast<T*>(memory) + values()); }

  cudaError_t pack_into(void* memory, cudaStream_t stream) const {
    constexpr int block = row_values<T>;
    PackArguments<T> a{};
    a.gates = p_.gates, a.tasks = p_.tasks, a.weight_steps = p_.weight_steps();
    a.columns = Base::columns, a.warp_blocks = Base::Tile::blocks_n, a.stages = stages();
    a.to = weights(memory), a.biases = biases(memory);
    a.bias = {p_.shared_bias, p_.private_bias, p_.num_shared, p_.num_private}, a.index = p_.index;
    a.dim = p_.dim, a.padded_dim = static_cast<int>(padded_dim());

    const PackedAxis ranks{0, 0, p_.rank}, units{0, 0, p_.dim};
    PackedMatrix<T> weight{}, projection{};
    weight.bank = {p_.shared_weight, p_.private_weight, p_.num_shared, p_.num_private};
    weight.index = p_.index, weight.rows = p_.dim, weight.size = p_.rank;
    projection.bank = {p_.shared_projection, p_.private_projection, p_.num_shared_projections, p_.num_private_projections};
    projection.index = p_.projection_index, projection.rows = p_.rank, projection.size = p_.columns + p_.dim;

    const auto add = [&](PackedMatrix<T> matrix, const PackedAxis& outer, const PackedAxis& inner, int tiles, int blocks, int64_t stage) {
      matrix.outer = outer, matrix.inner = inner, matrix.tiles = tiles, matrix.blocks = blocks, matrix.first_stage = stage;
      a.matrices[a.count++] = matrix;
    };
    add(weight, units, ranks, sizes_.unit_tiles, sizes_.rank_blocks, 0);
    if (goes_back_) {
      PackedMatrix<T> across = weight;
      across.transposed = true, across.halved = sizes_.halved;
      add(across, ranks, units, sizes_.rank_tiles, sizes_.unit_tiles * Base::column_blocks, sizes_.units());
      across = projection, across.transposed = true;
      const PackedAxis inputs{p_.columns, sizes_.context_tiles * Base::columns, p_.dim};
      add(across, inputs, ranks, sizes_.context_tiles + sizes_.unit_tiles, sizes_.rank_blocks, sizes_.units() + sizes_.ranks());
    }
    if (projects_) {
      projection.halved = sizes_.halved;
      const PackedAxis inputs{p_.columns, sizes_.context_blocks * block, p_.dim};
      add(projection, ranks, inputs, sizes_.rank_tiles, sizes_.context_blocks + sizes_.state_blocks, project_stage());
    }
    return pack(a, stream);
  }

 private:
  int64_t padded_dim() const { return int64_t(sizes_.unit_tiles) * Base::columns; }

  const LowRankProblem<T>& p_;
  const Sizes sizes_;
  const bool projects_, goes_back_;
};

}  // namespace dcrnn_fast::cuda
