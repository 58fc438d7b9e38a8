// The low-rank cell on a GPU, by raw pointers: as cross_rnn.h, with rank r.
#pragma once

#include "cross_rnn.h"

namespace dcrnn_fast::cuda {

// The weights' rows are [G, r]. `schedule` does not matter: all steps are one launch.
template <typename T>
struct LowRankCell : Cell<T> {
  BankRows<T> projection;  // rows [G, K]

  int rank() const { return static_cast<int>(projection.banks.rows()); }
  int64_t ranks() const { return this->batch * this->gates * rank(); }  // values of a task's z and y in a step
};

// activations, z and y, is [T, L, B, G, r] or null.
template <typename T>
void low_rank_forward(const LowRankCell<T>& cell, T* out, bool every_state, T* activations);

template <typename T>
struct LowRankGradientPointers : GradientPointers<T> {
  bool projections;
  T *shared_projection, *private_projection;
};

template <typename T>
void low_rank_backward(const LowRankCell<T>& cell, const T* grad, bool every_state, const T* activations,
                       const LowRankGradientPointers<T>& out);

}  // namespace dcrnn_fast::cuda
