// Sums that end the backwards of cross_rnn.
#pragma once

#include "runtime.h"
#include "types.h"

namespace dcrnn_fast::cuda {

// In sums [groups, count, width], the sum over the second dimension replaces its first summand.
template <typename A>
cudaError_t sum_in_place(A* sums, int64_t groups, int64_t count, int64_t width, cudaStream_t stream);

// to [count] = the sum over the tasks of from [tasks, count].
template <typename T>
cudaError_t sum_tasks(const accumulator<T>* from, T* to, int64_t count, int tasks, cudaStream_t stream);

}  // namespace dcrnn_fast::cuda
