// param_gather on a GPU, by raw pointers, and the sums into banks that cross_rnn's backward ends with. As cross_rnn.h: contiguous, queued on
// `stream`, the first error is returned.
#pragma once

#include "cross_rnn.h"

namespace dcrnn_fast::cuda {

// Two banks of rows of `row_bytes` bytes, read by index [T, R].
struct Banks {
  const int32_t* index;
  int tasks, rows, num_shared, num_private;
};

// out [T, R, row]. `value_bytes` is the dtype's size, on which all addresses are boundaries.
cudaError_t gather(const Banks& banks, const void* shared, const void* own, void* out, int64_t row_bytes, int value_bytes, const Device& device,
                   cudaStream_t stream);

// The gradient [T, R, n] added into shared [S, n] and own [T, P, n].
template <typename T>
cudaError_t sum_rows(const Banks& banks, const T* gradient, T* shared, T* own, int64_t n, cudaStream_t stream);

}  // namespace dcrnn_fast::cuda
