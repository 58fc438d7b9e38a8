// Checks of an operator's arguments. The Python functions give longer messages. These checks protect calls that do not pass through them,
// from C++ or from a compiled graph, against reading outside their tensors.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace dcrnn_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Words>
[[noreturn]] void fail(const Words&... words) {
  std::ostringstream message;
  message << "dcrnn_fast: ";
  (message << ... << words);
  throw std::invalid_argument(message.str());
}

template <typename... Words>
void check(bool holds, const Words&... words) {
  if (!holds) [[unlikely]]
    fail(words...);
}

inline std::string shape(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "]";
  return text.str();
}

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim) {
  check(tensor.dim() == dim, name, ": got shape ", shape(tensor), ", expected ", dim, " dimensions");
}

inline void check_size(const Tensor& tensor, const char* name, int64_t dimension, int64_t expected) {
  check(tensor.size(dimension) == expected, name, ": got shape ", shape(tensor), ", expected size ", expected, " in dimension ", dimension);
}

inline void check_alike_device(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  check(tensor.is_cpu() == other.is_cpu() && tensor.get_device_index() == other.get_device_index(), name, ": not on the device of ",
        other_name);
}

inline void check_alike(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  check(tensor.scalar_type() == other.scalar_type(), name, ": its dtype is not that of ", other_name);
  check_alike_device(tensor, name, other, other_name);
}

inline void check_index(const Tensor& index) {
  check(index.scalar_type() == ScalarType::Int, "index: expected dtype int32");
  check_dim(index, "index", 2);
}

inline void check_index_values(const int32_t* index, int64_t count, int64_t rows) {
  for (int64_t i = 0; i < count; ++i)
    check(index[i] >= 0 && index[i] < rows, "index: got ", index[i], ", expected values in [0, S + P) = [0, ", rows, ")");
}

// Calls body with a value of the C++ type of the tensor's dtype. BFloat16 and Half are the device's types. Refuses dtypes without kernels.
template <typename BFloat16, typename Half, typename Body>
auto with_type(const Tensor& tensor, const char* name, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    case ScalarType::Half:
      return body(Half{});
    default:
      fail(name, ": expected float32, float64, bfloat16 or float16");
  }
}

inline void check_dtype(const Tensor& tensor, const char* name) {
  with_type<float, float>(tensor, name, [](auto) {});
}

}  // namespace dcrnn_fast
