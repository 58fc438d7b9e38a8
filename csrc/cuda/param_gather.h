// param_gather on a GPU, by raw pointers. As in cross_rnn.h, every array is contiguous, and functions queue their work on the stream.
#pragma once

#include "../banks.h"
#include "gpu.h"
#include "types.h"

namespace dcrnn_fast::cuda {

// A value below banks.shared names a row of the shared bank, `banks.shared + p` row p of the task's private bank. banks.weight_steps is 1.
struct RowIndex {
  const int32_t* values;  // [banks.tasks, rows]
  int64_t rows;
  Banks banks;
};

// Copies rows of `row_bytes` bytes, an even number, from shared [S, row] and own [T, P, row] to out [T, R, row].
void gather(const RowIndex& index, const void* shared, const void* own, void* out, int64_t row_bytes, const Gpu& gpu);

// Sums the gradient [T, R, n] into shared [S, n] and own [T, P, n]. The index has less than 2^32 values.
template <typename T>
void sum_rows(const RowIndex& index, const T* gradient, T* shared, T* own, int64_t n, const Gpu& gpu);

}  // namespace dcrnn_fast::cuda
