// Which instances of the low-rank cell's kernels a call gets, and what they need before the launch: packed weights, and in the backward the
// states.
#pragma once

#include "low_rank_pack.h"
#include "low_rank_pipeline.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {

// In 16 bits, a tile of 128 rows reads the weights half as often as one of 64; the backward has no room for it. The small tile is for small
// batches, for many units, and for float64.
template <typename M>
struct LowRankTiles {
  static constexpr int bytes = sizeof(typename M::Value);
  using Small = Tiling<M, 1, 4, 1, 2>;
  using Middle = std::conditional_t<M::tensor_cores, Tiling<M, 4, 2, 1, 4>, std::conditional_t<bytes == 4, Tiling<M, 2, 4, 2, 2>, Small>>;
  using Large = std::conditional_t<bytes == 2, Tiling<M, 4, 2, 2, 4>, Middle>;
};

// Fills in the call and its packed weights, and where the operands and the stages have places. Returns the shared memory for them.
template <typename Kernel, typename T>
int fill(LowRankArguments<T>& a, const LowRankCell<T>& cell, const PackedWeights<typename Kernel::Base>& packed) {
  a.x0 = cell.x0, a.weights = packed.weights.get(), a.biases = packed.biases.get(), a.stages_a_step = packed.stages;
  a.batch = cell.batch, a.dim = cell.dim, a.columns = cell.columns, a.rank = cell.rank(), a.weight_steps = cell.weight_steps();
  const bool may_stay = cell.weight_steps() == 1 && cell.steps > 1 && packed.sizes.rank_tiles == 1;
  for (const int64_t depth : {Kernel::stages, 2})
    for (const int64_t slots : {may_stay ? packed.stages : depth, depth}) {
      const int64_t bytes = Kernel::shared_bytes(packed.sizes, true, slots, depth);
      a.on_chip = bytes <= cell.gpu.shared_memory, a.resident = may_stay && slots == packed.stages, a.depth = static_cast<int>(depth);
      if (a.on_chip) return static_cast<int>(bytes);
    }
  a.resident = false, a.depth = Kernel::stages;
  return static_cast<int>(Kernel::shared_bytes(packed.sizes, false, a.depth, a.depth));
}

// The time of a launch, in the time that a row of a tile takes: each wave of blocks takes that of a tile's rows, and that of the weights'
// way to the chip, which takes as long as `weights_rows` rows. A prediction: nothing was measured. More than any where the operands do not
// fit on the chip.
inline constexpr int weights_rows = 16;

template <typename Kernel, typename T>
int64_t cost_of(const LowRankCell<T>& cell) {
  const typename Kernel::Sizes sizes(cell.dim, cell.columns, cell.rank());
  if (Kernel::shared_bytes(sizes, true, 2, 2) > cell.gpu.shared_memory) return INT64_MAX;
  const int64_t blocks = divide_up(cell.batch, Kernel::Tile::rows) * cell.tasks();
  return divide_up(blocks, cell.gpu.multiprocessors) * (Kernel::Tile::rows + weights_rows);
}

template <template <typename, int, typename, int> typename Kernel, typename M, int G, typename Tile>
using LowRankKernel = Kernel<M, G, Tile, Tile::threads == 128 ? small_stages : large_stages>;

// Calls body with the instance of a kernel that a call gets, with large tiles or without.
template <template <typename, int, typename, int> typename Kernel, bool with_large, typename T, typename Body>
void with_low_rank_kernel(const LowRankCell<T>& cell, const Body& body) {
  with_kernels(cell, [&](auto math, auto vectors) {
    using All = LowRankTiles<decltype(math)>;
    constexpr int G = decltype(vectors)::value;
    using Small = LowRankKernel<Kernel, decltype(math), G, typename All::Small>;
    using Middle = LowRankKernel<Kernel, decltype(math), G, typename All::Middle>;
    using Large = LowRankKernel<Kernel, decltype(math), G, std::conditional_t<with_large, typename All::Large, typename All::Middle>>;
    const auto cost = [&](int64_t found, Tiles tiles) { return cell.tiles == tiles && found != INT64_MAX ? int64_t{-1} : found; };
    const int64_t large = cost(cost_of<Large>(cell), Tiles::large), small = cost(cost_of<Small>(cell), Tiles::small);
    if constexpr (!std::is_same_v<Large, Middle>) {
      const int64_t middle = cost_of<Middle>(cell);
      if (middle < large && middle < small) return body(static_cast<Middle*>(nullptr));
    }
    large < small ? body(static_cast<Large*>(nullptr)) : body(static_cast<Small*>(nullptr));
  });
}

// The states before each step [T, L, B, D], null for one step; and z and y, unless they are given.
template <typename T>
void states_again(const LowRankCell<T>& cell, T* states, T* activations, bool given);

}  // namespace dcrnn_fast::cuda
