// The launch of the forward's kernel, which the backward needs too, for the states.
#pragma once

#include "low_rank_forward_kernels.h"
#include "low_rank_pack.h"
#include "low_rank_tiles.h"

namespace dcrnn_fast::cuda {

// Fills in how the operands are kept, and launches.
template <typename Kernel, typename T = typename Kernel::T>
cudaError_t launch_forward(const LowRankProblem<T>& p, LowRankForwardArguments<T> a, cudaStream_t stream) {
  const typename Kernel::Sizes sizes(p.dim, p.columns, p.rank);
  const LowRankPlacement placement = place_low_rank<Kernel>(p, sizes, (a.given ? 0 : sizes.project()) + sizes.units());
  a.x0 = p.x0, a.context = p.context;
  a.batch = p.batch, a.dim = p.dim, a.columns = p.columns, a.rank = p.rank, a.weight_steps = p.weight_steps();
  a.on_chip = placement.on_chip, a.resident = placement.resident;
  const Grid grid{divide_up(p.batch, Kernel::Tile::rows), p.tasks};
  return launch(low_rank_forward_steps<Kernel>, grid, Kernel::threads, static_cast<int>(placement.shared_bytes), stream, a);
}

}  // namespace dcrnn_fast::cuda
