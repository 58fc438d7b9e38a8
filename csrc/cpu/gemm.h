// PyTorch's matrix product on memory that we own. The C shims call the CPU kernel directly: through the dispatcher, the caller's autocast
// and grad mode would hold on the calling thread, but not on the workers.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>
#include <cstdlib>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "types.h"

namespace dcrnn_fast::cpu {

template <typename T>
int32_t dtype_code() {
  if constexpr (std::is_same_v<T, float>) return aoti_torch_dtype_float32();
  if constexpr (std::is_same_v<T, double>) return aoti_torch_dtype_float64();
  if constexpr (std::is_same_v<T, BFloat16>) return aoti_torch_dtype_bfloat16();
  if constexpr (std::is_same_v<T, Half>) return aoti_torch_dtype_float16();
}

// A matrix in memory that it does not own, in the form that the library takes.
template <typename T>
class Matrix {
 public:
  Matrix(const T* data, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride = 1) {
#if defined(__SANITIZE_ADDRESS__)  // it does not see what the library's products read and write
    const int64_t span = rows && columns ? (rows - 1) * row_stride + (columns - 1) * column_stride + 1 : 0;
    if (__asan_region_is_poisoned(const_cast<T*>(data), span * sizeof(T))) std::abort();
#endif
    const int64_t sizes[] = {rows, columns}, strides[] = {row_stride, column_stride};
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(const_cast<T*>(data), 2, sizes, strides, 0, dtype_code<T>(),
                                                              aoti_torch_device_type_cpu(), -1, &handle_));
  }
  Matrix(Matrix&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  ~Matrix() {
    if (handle_) aoti_torch_delete_tensor_object(handle_);
  }

  AtenTensorHandle handle() const { return handle_; }

 private:
  AtenTensorHandle handle_ = nullptr;
};

// out = a b, or out += a b.
template <typename T>
void gemm(const Matrix<T>& out, const Matrix<T>& a, const Matrix<T>& b, bool add = false) {
  TORCH_ERROR_CODE_CHECK(add ? aoti_torch_cpu_addmm_out(out.handle(), out.handle(), a.handle(), b.handle(), 1.0, 1.0)
                             : aoti_torch_cpu_mm_out(out.handle(), a.handle(), b.handle()));
}

}  // namespace dcrnn_fast::cpu
