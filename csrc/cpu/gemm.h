// The full cell's matrix products, on memory that we own. In float32 and float64 they are our own (product.h), but those of a forward of
// few rows, and those of a backward of many units: there the rows of both operands lie pages apart, and the library copies them first. In
// half precision, unless computes_in_float, all are the library's: many CPUs have units for them. The C shims call its CPU kernel directly:
// through the dispatcher, the caller's autocast and grad mode would hold on the calling thread, but not on the workers.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "product.h"
#include "types.h"

namespace dcrnn_fast::cpu {

template <typename T>
int32_t dtype_code() {
  if constexpr (std::is_same_v<T, float>) return aoti_torch_dtype_float32();
  if constexpr (std::is_same_v<T, double>) return aoti_torch_dtype_float64();
  if constexpr (std::is_same_v<T, BFloat16>) return aoti_torch_dtype_bfloat16();
  if constexpr (std::is_same_v<T, Half>) return aoti_torch_dtype_float16();
}

// A matrix in memory that it does not own: value (i, j) lies at data[i * row_stride + j * column_stride].
template <typename T>
struct Matrix {
  const T* data;
  int64_t rows, columns, row_stride, column_stride = 1;
};

// So many columns of a right operand that lies in slices.
template <typename T>
constexpr int64_t slice = 256 / sizeof(T);
// Such an operand. A slice has its rows one after another, so that a product reads it from end to end. Value (i, j) lies at
// data[j / slice * stride + i * slice + j % slice].
template <typename T>
struct Sliced {
  const T* data;
  int64_t rows, columns, stride;
};

// The values of a matrix of `rows` rows in slices.
template <typename T>
constexpr int64_t sliced_values(int64_t rows, int64_t columns) {
  return (columns + slice<T> - 1) / slice<T> * slice<T> * rows;
}

// A matrix in the form that the library takes.
template <typename T>
class LibraryMatrix {
 public:
  explicit LibraryMatrix(const Matrix<T>& from) {
    const int64_t span = from.rows && from.columns ? (from.rows - 1) * from.row_stride + (from.columns - 1) * from.column_stride + 1 : 0;
    show_to_sanitizer(from.data, span);
    const int64_t sizes[] = {from.rows, from.columns}, strides[] = {from.row_stride, from.column_stride};
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(const_cast<T*>(from.data), 2, sizes, strides, 0, dtype_code<T>(),
                                                              aoti_torch_device_type_cpu(), -1, &handle_));
  }
  LibraryMatrix(const LibraryMatrix&) = delete;
  LibraryMatrix& operator=(const LibraryMatrix&) = delete;
  ~LibraryMatrix() { aoti_torch_delete_tensor_object(handle_); }

  AtenTensorHandle handle() const { return handle_; }

 private:
  AtenTensorHandle handle_ = nullptr;
};

// out = a b, or out += a b, by our own product.
template <typename T>
void gemm(Rows<T> out, const Matrix<T>& a, const Sliced<T>& b, bool add = false) {
  for (int64_t column = 0; column < b.columns; column += slice<T>)
    product_kernels<T>().product({a.rows, std::min(slice<T>, b.columns - column), a.columns, a.data, a.row_stride, a.column_stride,
                                  b.data + column / slice<T> * b.stride, slice<T>, out.at(0, column), add});
}

// out = a b, or out += a b. By our own product if it can read b, in float32 and float64 with the values of a row beside each other, unless
// the library's is asked for.
template <typename T>
void gemm(Rows<T> out, const Matrix<T>& a, const Matrix<T>& b, bool add = false, bool by_library = false) {
  if constexpr (!is_low<T>)
    if (b.column_stride == 1 && !by_library)
      return product_kernels<T>().product(
          {a.rows, b.columns, a.columns, a.data, a.row_stride, a.column_stride, b.data, b.row_stride, out, add});
  const LibraryMatrix<T> to({out.data, a.rows, b.columns, out.stride}), left(a), right(b);
  TORCH_ERROR_CODE_CHECK(add ? aoti_torch_cpu_addmm_out(to.handle(), to.handle(), left.handle(), right.handle(), 1.0, 1.0)
                             : aoti_torch_cpu_mm_out(to.handle(), left.handle(), right.handle()));
}

}  // namespace dcrnn_fast::cpu
