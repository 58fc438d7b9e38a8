// Checks of an operator's arguments. The Python functions give longer messages. These checks protect calls that do not pass through them,
// from C++ or from a compiled graph, against reading outside their tensors.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

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

// A tensor's sizes as text, written only when a check fails.
struct Shape {
  const Tensor& tensor;
};
inline Shape shape(const Tensor& tensor) { return {tensor}; }
inline std::ostream& operator<<(std::ostream& text, const Shape& of) {
  text << "[";
  for (int64_t i = 0; i < of.tensor.dim(); ++i) text << (i ? ", " : "") << of.tensor.size(i);
  return text << "]";
}

// What the operators take at most. No product of a step count and a size then leaves int64, and no size leaves int32.
inline constexpr int64_t most_steps = 65535, most_size = INT32_MAX, most_rows = 1 << 24;

// The number of values of a tensor with these sizes, or of a part of one; refuses what no memory can hold.
template <typename Sizes>
int64_t values_of(const Sizes& sizes, const char* what) {
  int64_t count = 1;
  for (const int64_t size : sizes)
    if (size == 0) return 0;
  for (const int64_t size : sizes)
    check(!__builtin_mul_overflow(count, size, &count) && count <= INT64_MAX / 16, what, ": too many values for any memory");
  return count;
}
inline int64_t values_of(std::initializer_list<int64_t> sizes, const char* what) {
  return values_of<std::initializer_list<int64_t>>(sizes, what);
}

// `leading`, and after it the tensor's sizes from dimension `from` on.
inline std::vector<int64_t> with_trailing(std::vector<int64_t> leading, const Tensor& tensor, int64_t from) {
  for (int64_t i = from; i < tensor.dim(); ++i) leading.push_back(tensor.size(i));
  return leading;
}

inline int32_t device_type(const Tensor& tensor) {
  int32_t type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
  return type;
}

// Checks what the dispatcher does not: it takes the operator of one argument's device for all of them. `device` is the type of the
// kernels' device.
inline void check_memory(const Tensor& tensor, const char* name, int32_t device) {
  check(tensor.defined(), name, ": got an undefined tensor");
  check(device_type(tensor) == device, name, ": got a tensor on another device, expected one on ",
        device == aoti_torch_device_type_cpu() ? "the CPU" : "a GPU", " as other arguments are");
  int32_t layout = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  check(layout == aoti_torch_layout_strided(), name, ": got a sparse or packed tensor, expected a dense one (layout torch.strided)");
  int64_t last = 0, bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &last));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  bool empty = false, overflow = false;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    const int64_t size = tensor.size(i);
    check(size <= most_size, name, ": got shape ", shape(tensor), ", expected sizes of at most ", most_size);
    empty = empty || size == 0;
    int64_t span = 0;
    overflow = __builtin_mul_overflow(size - 1, tensor.stride(i), &span) || __builtin_add_overflow(last, span, &last) || overflow;
  }
  check(empty || (!overflow && last < bytes / static_cast<int64_t>(tensor.element_size())), name, ": got shape ", shape(tensor),
        " in a storage of ", bytes, " bytes, expected memory for every value (was its storage freed?)");
}

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim) {
  check(tensor.dim() == dim, name, ": got shape ", shape(tensor), ", expected ", dim, " dimensions");
}

inline void check_size(const Tensor& tensor, const char* name, int64_t dimension, int64_t expected) {
  check(tensor.size(dimension) == expected, name, ": got shape ", shape(tensor), ", expected size ", expected, " in dimension ", dimension);
}

// make(), whose failure is told as one to allocate what `words` name. PyTorch's C interface passes no reason on.
template <typename Make, typename... Words>
auto with_memory(const Make& make, const Words&... words) {
  try {
    return make();
  } catch (const std::exception&) {
    std::ostringstream message;
    message << "dcrnn_fast: ";
    (message << ... << words) << ": could not be allocated (too little memory, or an earlier error of the device)";
    throw std::runtime_error(message.str());
  }
}

// An uninitialised tensor of the device of another one, and of its dtype unless another is given.
inline Tensor allocated(const Tensor& like, const std::vector<int64_t>& sizes, const char* what,
                        std::optional<ScalarType> dtype = std::nullopt) {
  return with_memory([&] { return torch::stable::new_empty(like, sizes, dtype); }, what);
}

// [0] for a gradient that is not wanted, and zeros where there is no work.
inline Tensor new_gradient(const Tensor& like, bool wanted, bool has_work, const std::vector<int64_t>& shape) {
  if (!wanted) return torch::stable::new_empty(like, {0});
  if (!has_work) return with_memory([&] { return torch::stable::new_zeros(like, shape); }, "a gradient");
  return allocated(like, shape, "a gradient");
}

// The tensor itself if it is contiguous, else a copy.
inline Tensor dense(const Tensor& tensor, const char* name) {
  return with_memory([&] { return torch::stable::contiguous(tensor); }, name, ": a contiguous copy of shape ", shape(tensor));
}

inline const char* words_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float:
      return "float32";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    default:
      return "int64";
  }
}

// The tensor of the CPU made contiguous, if it has this dtype and these sizes, of which -1 is any.
inline Tensor taken(const Tensor& tensor, const char* name, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  check_memory(tensor, name, aoti_torch_device_type_cpu());
  check(tensor.scalar_type() == dtype, name, ": expected dtype ", words_of(dtype));
  check_dim(tensor, name, static_cast<int64_t>(sizes.size()));
  int64_t dimension = 0;
  for (const int64_t size : sizes) {
    if (size >= 0) check_size(tensor, name, dimension, size);
    ++dimension;
  }
  return dense(tensor, name);
}

inline void check_alike_device(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  check(device_type(tensor) == device_type(other) && tensor.get_device_index() == other.get_device_index(), name, ": not on the device of ",
        other_name);
}

inline void check_alike(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  check(tensor.scalar_type() == other.scalar_type(), name, ": its dtype is not that of ", other_name);
  check_alike_device(tensor, name, other, other_name);
}

inline void check_index(const Tensor& index, const char* name = "index") {
  check(index.scalar_type() == ScalarType::Int, name, ": expected dtype int32");
  check_dim(index, name, 2);
}

// The rows of both banks: few enough that the backward may keep a number for each, and one at least where an index reads them.
inline void check_rows(int64_t num_shared, int64_t num_private, const Tensor& index, const char* names) {
  check(num_shared >= 0 && num_shared <= most_rows && num_private >= 0 && num_private <= most_rows, names, ": got ", num_shared, " and ",
        num_private, " rows, expected 0 to ", most_rows, " each");
  check(num_shared + num_private > 0 || index.numel() == 0, "index: got values, expected none: the banks have no rows");
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
