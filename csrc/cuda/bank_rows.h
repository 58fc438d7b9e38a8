// The rows of the two parameter banks, which kernels read in place.
#pragma once

#include "../banks.h"

namespace dcrnn_fast::cuda {

template <typename T>
struct BankRows {
  Banks banks;
  const T *shared, *own;  // [W, banks.shared, ...], [T, W, banks.own, ...]

  // A task's row of `size` values at a step of the weights.
  DCRNN_MEMBER const T* row(int64_t task, int64_t weight_step, int64_t row, int64_t size) const {
    return row_of(banks, shared, own, task, weight_step, row, size);
  }
};

}  // namespace dcrnn_fast::cuda
