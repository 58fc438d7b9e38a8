// The element types of the CPU kernels.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

namespace dcrnn_fast::cpu {

using BFloat16 = c10::BFloat16;
using Half = c10::Half;

// The type in which states, a, g, biases and sums are computed.
template <typename T>
using accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
inline constexpr bool is_low = !std::is_same_v<T, accumulator<T>>;

}  // namespace dcrnn_fast::cpu
