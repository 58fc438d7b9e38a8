// The element types of the CUDA kernels, the types in which they compute, and the blocks of a launch. Needs neither PyTorch nor CUDA.
#pragma once

#include <cstdint>
#include <type_traits>

namespace dcrnn_fast::cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// The type in which products, a, g and sums are computed.
template <typename T>
using accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

// How a product of values of type T is computed: by tensor cores (bfloat16, float16, and float32 as tf32), or exactly, by fused
// multiply-adds.
template <typename T, bool tensor_cores_>
struct Math {
  using Value = T;
  static constexpr bool tensor_cores = tensor_cores_;
  static constexpr bool tf32 = tensor_cores_ && std::is_same_v<T, float>;
};

struct Grid {
  int64_t x, y = 1;
  bool fits() const { return x <= INT32_MAX && y <= 65535; }  // whether a GPU can start so many
};

}  // namespace dcrnn_fast::cuda
