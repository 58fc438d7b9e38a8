// The two parameter banks as a kernel sees them: index[t, r] below S names a shared row, S + p the task's private row p.
#pragma once

#include "machine.h"

namespace dcrnn_fast::cuda {

template <typename T>
struct Bank {
  const T* shared;
  const T* own;
  int num_shared, num_private;

  // The row of `size` values, or null for an index out of range: a kernel cannot raise, so nothing is read and results become NaN.
  DCRNN_DEVICE const T* row(int index, int64_t task, int64_t size) const {
    if (index < 0 || index >= num_shared + num_private) return nullptr;
    return index < num_shared ? shared + index * size : own + (task * num_private + index - num_shared) * size;
  }
};

}  // namespace dcrnn_fast::cuda
