// The rows of the two parameter banks, as kernels read them. bank_index.h says what an index means.
#pragma once

#include "machine.h"

namespace dcrnn_fast::cuda {

template <typename T>
struct BankRows {
  const T* shared;
  const T* own;
  int num_shared, num_private;

  // The row of `size` values, or null for an index out of range. A kernel cannot raise an error, so nothing is read and the results become
  // NaN.
  DCRNN_DEVICE const T* row(int index, int64_t task, int64_t size) const {
    if (index < 0 || index >= num_shared + num_private) return nullptr;
    return index < num_shared ? shared + index * size : own + (task * num_private + index - num_shared) * size;
  }
};

}  // namespace dcrnn_fast::cuda
