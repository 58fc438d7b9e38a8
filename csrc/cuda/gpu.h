// What launches need of the program that calls them. It may use PyTorch or not.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#if defined(DCRNN_CUDA_ON_HOST)
#include "shim.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace dcrnn_fast::cuda {

// Matrices [count, rows, columns] of the call's dtype. Strides are in values.
struct Matrices {
  const void* values;
  std::array<int64_t, 3> sizes, strides;
};

// The current GPU, the stream that takes a call's work, and what the program lends.
struct Gpu {
  int multiprocessors, shared_memory;  // bytes of shared memory that a block may ask for
  cudaStream_t stream;
  // Memory from a multiple of 16 bytes on. Work that was queued before it is given back may still use it.
  std::function<std::shared_ptr<void>(int64_t bytes)> allocate;
  std::function<void(const Matrices& out, const Matrices& left, const Matrices& right)> multiply;  // out = left right

  // Memory for so many values, or null for none.
  template <typename T>
  std::shared_ptr<T> memory(int64_t count) const {
    return count ? std::static_pointer_cast<T>(allocate(count * static_cast<int64_t>(sizeof(T)))) : nullptr;
  }
};

}  // namespace dcrnn_fast::cuda
