// The element types of the CUDA kernels, the types in which they compute, and the blocks of a launch. Needs neither PyTorch nor CUDA.
#pragma once

#include <cstdint>
#include <stdexcept>
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

// Instantiates a template for each type of elements.
#define DCRNN_FOR_EACH_TYPE(INSTANCE) \
  INSTANCE(float);                    \
  INSTANCE(double);                   \
  INSTANCE(BFloat16);                 \
  INSTANCE(Half)

struct Grid {
  int64_t x, y = 1;
  void check() const {
    if (x > INT32_MAX || y > 65535)
      throw std::invalid_argument("dcrnn_fast: ValueError: sizes: a launch would need more blocks than a GPU starts, 2147483647 by 65535");
  }
};

constexpr int64_t divide_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

}  // namespace dcrnn_fast::cuda
