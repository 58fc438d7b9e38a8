// The low-rank cell's backward, for checked arguments.
#pragma once

#include "../arguments.h"
#include "types.h"

namespace dcrnn_fast::cpu {

// Which gradients are wanted, and where they go. x0 and context are null where they are not wanted. An empty bank's may be null.
template <typename T>
struct LowRankGradients {
  bool banks, projections;
  T *x0, *context, *shared_weight, *shared_bias, *private_weight, *private_bias, *shared_projection, *private_projection;
};

// `activations` is z and y of every step, or null: then they are computed again.
template <typename T>
void low_rank_backward(const Arguments& arguments, const T* grad, const T* activations, bool return_states, const LowRankGradients<T>& out);

}  // namespace dcrnn_fast::cpu
