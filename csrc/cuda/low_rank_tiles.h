// The instances of the low-rank cell's kernels, and which of them a problem gets.
#pragma once

#include "low_rank.h"
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

template <typename Tile>
inline constexpr int low_rank_stages = Tile::threads == 128 ? small_stages : large_stages;

// The time of a launch, in the time that a row of a tile takes: each wave of blocks takes that of a tile's rows, and that of the weights'
// way to the chip, which takes as long as `weights_rows` rows. A prediction: nothing was measured.
inline constexpr int weights_rows = 16;

constexpr int64_t low_rank_cost(int64_t waves, int tile_rows) { return waves * (tile_rows + weights_rows); }

// How a kernel's operands and weights are kept, and the stages of its pipeline.
struct LowRankPlacement {
  bool on_chip, resident;
  int depth;
  int64_t shared_bytes;
};

// The placement of a kernel whose stages of a step, `all`, could stay on the chip.
template <typename Kernel, typename T>
LowRankPlacement place_low_rank(const LowRankProblem<T>& p, const typename Kernel::Sizes& sizes, int64_t all) {
  const auto fits = [&](int64_t bytes) { return bytes <= p.device.shared_memory; };
  for (const int depth : {Kernel::stages, 2}) {
    const int64_t streamed = Kernel::shared_bytes(sizes, true, depth, depth), whole = Kernel::shared_bytes(sizes, true, all, depth);
    if (p.weight_steps() == 1 && p.steps > 1 && sizes.rank_tiles == 1 && fits(whole)) return {true, true, depth, whole};
    if (fits(streamed)) return {true, false, depth, streamed};
  }
  return {false, false, Kernel::stages, Kernel::shared_bytes(sizes, false, Kernel::stages, Kernel::stages)};
}

// The cost of a kernel whose operands fit on the chip; where they do not, more than any.
template <typename Kernel, typename T>
int64_t cost_of(const LowRankProblem<T>& p) {
  const typename Kernel::Sizes sizes(p.dim, p.columns, p.rank);
  if (Kernel::shared_bytes(sizes, true, 2, 2) > p.device.shared_memory) return INT64_MAX;
  return low_rank_cost(divide_up(divide_up(p.batch, Kernel::Tile::rows) * p.tasks, p.device.multiprocessors), Kernel::Tile::rows);
}

template <template <typename, int, typename, int> typename Kernel, typename M, int G, typename Tile>
using LowRankKernel = Kernel<M, G, Tile, low_rank_stages<Tile>>;

// Calls body with the instance of a kernel that the problem gets, `Large` being the largest of its tiles.
template <template <typename, int, typename, int> typename Kernel, typename M, int G, typename Large, typename T, typename Body>
auto with_low_rank_kernel(const LowRankProblem<T>& p, const Body& body) {
  using L = LowRankKernel<Kernel, M, G, Large>;
  using S = LowRankKernel<Kernel, M, G, typename LowRankTiles<M>::Small>;
  using Mid = LowRankKernel<Kernel, M, G, typename LowRankTiles<M>::Middle>;
  const auto cost = [&](int64_t found, Tiles tiles) { return p.tiles == tiles && found != INT64_MAX ? int64_t{-1} : found; };
  const int64_t large = cost(cost_of<L>(p), Tiles::large), small = cost(cost_of<S>(p), Tiles::small);
  if constexpr (!std::is_same_v<L, Mid>) {
    const int64_t middle = cost_of<Mid>(p);
    if (middle < large && middle < small) return body(static_cast<Mid*>(nullptr));
  }
  return large < small ? body(static_cast<L*>(nullptr)) : body(static_cast<S*>(nullptr));
}

// Whether rows of z and y are multiples of 16 bytes and start at multiples of 16 bytes.
template <typename T, typename... Pointers>
bool ranks_in_vectors(const LowRankProblem<T>& p, Pointers... pointers) {
  const auto on_boundary = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return p.rank * sizeof(T) % 16 == 0 && (on_boundary(pointers) && ...);
}

}  // namespace dcrnn_fast::cuda
