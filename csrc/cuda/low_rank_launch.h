// The launch of the forward's kernel for the backward, which needs the states and, where they were not kept, z and y.
#pragma once

#include "low_rank_forward_kernels.h"
#include "low_rank_pack.h"
#include "low_rank_tiles.h"

namespace dcrnn_fast::cuda {

// The tile has so many rows: those of LowRankTiles' middle or small one. What the arguments say of the problem, and of how operands are
// kept, is filled in.
template <typename T>
cudaError_t launch_states(const LowRankProblem<T>& problem, int tile_rows, const LowRankForwardArguments<T>& arguments,
                          cudaStream_t stream);

}  // namespace dcrnn_fast::cuda
