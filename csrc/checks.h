// Checks of an operator's arguments, with the words of dcrnn_fast/ops/checks.py. A message begins with the type of the error in Python:
// PyTorch hands all C++ exceptions on as one type.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace dcrnn_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Words>
[[noreturn]] void fail_as(const char* type, const Words&... words) {
  std::ostringstream message;
  message << "dcrnn_fast: " << type << ": ";
  (message << ... << words);
  throw std::invalid_argument(message.str());
}

template <typename... Words>
[[noreturn]] void fail(const Words&... words) {
  fail_as("ValueError", words...);
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

inline const char* words_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    default:
      return torch::headeronly::toString(dtype);
  }
}

// The dispatcher takes the operator of one argument's device for all of them, so that these may be of any kind.
inline void check_memory(const Tensor& tensor, const char* name) {
  if (!tensor.defined()) fail_as("TypeError", name, ": got NoneType, expected a tensor");
  int32_t layout = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  check(layout == aoti_torch_layout_strided(), name, ": got a sparse or packed tensor, expected a dense one (torch.strided)");
  int64_t last = 0, bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &last));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  bool empty = false, overflow = false;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    const int64_t size = tensor.size(i);
    check(size <= most_size, name, ": got shape ", shape(tensor), ", expected sizes below 2**31");
    empty = empty || size == 0;
    int64_t span = 0;
    overflow = __builtin_mul_overflow(size - 1, tensor.stride(i), &span) || __builtin_add_overflow(last, span, &last) || overflow;
  }
  check(empty || (!overflow && last < bytes / static_cast<int64_t>(tensor.element_size())), name, ": got shape ", shape(tensor),
        " in a storage of ", bytes, " bytes, expected memory for every value (was its storage freed?)");
}

inline void check_floats(const Tensor& tensor, const char* name) {
  const ScalarType dtype = tensor.scalar_type();
  if (dtype != ScalarType::Float && dtype != ScalarType::Double && dtype != ScalarType::BFloat16 && dtype != ScalarType::Half)
    fail_as("TypeError", name, ": got dtype ", words_of(dtype), ", expected a floating dtype of at least 16 bits");
}

inline void check_dtype(const Tensor& tensor, const char* name, ScalarType expected, const char* why = "") {
  if (tensor.scalar_type() != expected)
    fail_as("TypeError", name, ": got dtype ", words_of(tensor.scalar_type()), ", expected ", words_of(expected), why);
}

inline std::string words_of_device(const Tensor& tensor) {
  const int32_t type = device_type(tensor);
  if (type == aoti_torch_device_type_cpu()) return "cpu";
  return type == aoti_torch_device_type_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : "another";
}

inline void check_alike_device(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  if (device_type(tensor) != device_type(other) || tensor.get_device_index() != other.get_device_index())
    fail(name, ": got device ", words_of_device(tensor), ", expected ", words_of_device(other), " as ", other_name, " is on");
}

inline void check_alike(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  if (tensor.scalar_type() != other.scalar_type())
    check_dtype(tensor, name, other.scalar_type(), (std::string(" as ") + other_name + " has").c_str());
  check_alike_device(tensor, name, other, other_name);
}

// The sizes of an operator's tensors by letter, as they become known.
class Sizes {
 public:
  Sizes() { std::fill(std::begin(known_), std::end(known_), -1); }
  int64_t operator[](char letter) const { return known_[letter - 'A']; }
  void set(char letter, int64_t size) { known_[letter - 'A'] = size; }

  // Checks the tensor's sizes, a letter each, against those that are known, and adds those that are not known yet.
  void check_shape(const Tensor& tensor, const char* name, std::string_view letters) {
    bool fits = tensor.dim() == static_cast<int64_t>(letters.size());
    for (size_t i = 0; fits && i < letters.size(); ++i)
      fits = (*this)[letters[i]] < 0 || (*this)[letters[i]] == tensor.size(static_cast<int64_t>(i));
    if (!fits) [[unlikely]]
      refuse(tensor, name, letters);
    for (size_t i = 0; i < letters.size(); ++i) set(letters[i], tensor.size(static_cast<int64_t>(i)));
  }

 private:
  [[noreturn]] void refuse(const Tensor& tensor, const char* name, std::string_view letters) const {
    std::string expected, known;
    for (const char letter : letters) {
      expected += (expected.empty() ? "" : ", ") + std::string(1, letter);
      if ((*this)[letter] >= 0)
        known += (known.empty() ? " with " : ", ") + std::string(1, letter) + " = " + std::to_string((*this)[letter]);
    }
    fail(name, ": got shape ", shape(tensor), ", expected [", expected, "]", known);
  }

  int64_t known_['z' - 'A' + 1];
};

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

// The tensor of the CPU made contiguous, if it has this dtype and these sizes, of which -1 is any.
inline Tensor taken(const Tensor& tensor, const char* name, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  check_memory(tensor, name);
  check(device_type(tensor) == aoti_torch_device_type_cpu(), name, ": got a tensor on another device, expected one on the CPU");
  check_dtype(tensor, name, dtype);
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  for (int64_t i = 0; fits && i < tensor.dim(); ++i) fits = sizes.begin()[i] < 0 || tensor.size(i) == sizes.begin()[i];
  if (!fits) [[unlikely]] {
    std::string expected;
    for (const int64_t size : sizes) expected += (expected.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
    fail(name, ": got shape ", shape(tensor), ", expected [", expected, "]");
  }
  return dense(tensor, name);
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
      check_floats(tensor, name);
      fail(name, ": no kernel");
  }
}

}  // namespace dcrnn_fast
