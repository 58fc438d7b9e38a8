// The low-rank cell of cross_rnn on a GPU, by raw pointers: as cross_rnn.h, which see. Further letters: r for the rank, W for the number of
// steps that have weights of their own: 1, or L.
#pragma once

#include "cross_rnn.h"

namespace dcrnn_fast::cuda {

// The weights' rows have r columns: shared_weight [S, G, r], private_weight [T, P, G, r]. All steps are one launch: `schedule` does not
// matter.
template <typename Value>
struct LowRankProblem : Problem<Value> {
  const Value *shared_projection, *private_projection;  // [M, G, K], [T, N, G, K]
  const int32_t* projection_index;                      // [T, W * r]; a value out of range makes its column of z NaN
  int rank, num_shared_projections, num_private_projections;

  BankIndex projection_bank() const {
    return {projection_index, this->tasks, int64_t(this->weight_steps()) * rank, num_shared_projections, num_private_projections};
  }
};

// out is [T, B, D], or [T, L + 1, B, D] with every_state; activations, z and y, is [T, L, B, G, r] or null; scratch has
// low_rank_forward_bytes() bytes and starts at a multiple of 16.
template <typename Value>
cudaError_t low_rank_forward(const LowRankProblem<Value>& problem, Value* out, bool every_state, Value* activations, void* scratch,
                             cudaStream_t stream);

template <typename Value>
int64_t low_rank_forward_bytes(const LowRankProblem<Value>& problem, bool keeps_activations);

// Memory that the backward writes. The products for dW, [W, T, G, D, r], read z|y and da|dq; those for dP, [step_groups(), T, G, r, K],
// read x0, the states and dz|dy.
template <typename Value>
struct LowRankWorkspace {
  Value* states;                      // [T, L - 1, B, D]
  Value *gradients, *rank_gradients;  // da|dq [T, L, B, G, D], dz|dy [T, L, B, G, r]
  accumulator<Value>*dx0, *dcontext;  // [T, B, D], [T, L, B, C], or null where they are not asked for
  accumulator<Value>* sums;           // [T, L, row_tiles, G, D], for sum_tiles as in cross_rnn.h
  void* scratch;                      // low_rank_backward_bytes() bytes, from a multiple of 16 on
};

template <typename Value>
int low_rank_row_tiles(const LowRankProblem<Value>& problem);

template <typename Value>
int64_t low_rank_backward_bytes(const LowRankProblem<Value>& problem, bool kept);

// grad has the shape of the forward's out. Fills the workspace, and writes dx0 [B, D] and dcontext [L, B, C] where the workspace has memory
// for them. Computes z and y again, and writes them to `activations`, unless they are `kept`.
template <typename Value>
cudaError_t low_rank_backward(const LowRankProblem<Value>& problem, const Value* grad, bool every_state, Value* activations, bool kept,
                              const LowRankWorkspace<Value>& workspace, Value* dx0, Value* dcontext, cudaStream_t stream);

}  // namespace dcrnn_fast::cuda
