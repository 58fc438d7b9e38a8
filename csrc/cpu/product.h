// A matrix product, compiled once for each instruction set from product.inl. On x86-64, a row of the result has the same bits whatever rows
// are beside it, so no division of the rows among tiles and threads changes it.
//
// It adds up in A, float or double. Its operands are of type O: A itself, or bfloat16 on a CPU that multiplies pairs of them and adds both
// products to a float. Strides are in elements.
#pragma once

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "elementwise.h"
#include "isa.h"

namespace dcrnn_fast::cpu {

// The widest vector holds so many floats; the rows of packed operands are padded to a multiple.
constexpr int64_t padding = 16;
constexpr int64_t padded(int64_t values) { return (values + padding - 1) / padding * padding; }
// The stride of rows of so many values: of rows that lie a multiple of some power of two apart, a cache holds few.
template <typename T>
constexpr int64_t spread(int64_t values) {
  return values * sizeof(T) % 1024 ? values : values + padding;
}

// So many terms of a sum lie side by side in the right operand of a product, and are multiplied at once.
template <typename O>
constexpr int64_t group = is_low<O> ? 2 : 1;
// The terms of a sum, rounded up to whole groups. Those past the end must be 0 on both sides: a NaN there would reach the sum.
template <typename O>
constexpr int64_t grouped(int64_t terms) {
  return (terms + group<O> - 1) / group<O> * group<O>;
}
// Where the term k of column n lies in a right operand with rows of `width` columns.
template <typename O>
constexpr int64_t place(int64_t k, int64_t n, int64_t width) {
  return (k / group<O> * width + n) * group<O> + k % group<O>;
}

// What a product reads or writes where AddressSanitizer does not look: in the library, and in the CPU's tiles.
template <typename T>
void show_to_sanitizer([[maybe_unused]] const T* from, [[maybe_unused]] int64_t values) {
#if defined(__SANITIZE_ADDRESS__)
  const void* const wrong = __asan_region_is_poisoned(const_cast<T*>(from), values * sizeof(T));
  if (wrong) (void)*static_cast<const volatile char*>(wrong);  // which it sees, and reports
#endif
}

// out [rows, width] = or += a [rows, inner] b [inner, width]. `inner` is grouped; in bfloat16, `width` is padded. The values of a row of
// `a` lie `column_stride` apart; 1 where they are grouped.
template <typename O>
struct Product {
  using A = accumulator<O>;
  int64_t rows, width, inner;
  const O* a;
  int64_t row_stride, column_stride;
  const O* b;
  int64_t b_width;  // the columns of a whole row of b, of which `width` are read
  Rows<A> out;
  bool add;
};

template <typename A>
struct ProductKernels {
  void (*product)(const Product<A>&);
  // Writes up to 16 rows of `inner` values as columns of a right operand [inner, width].
  void (*transpose)(const A* const* rows, int64_t count, int64_t inner, A* to, int64_t width);
};

template <typename A>
const ProductKernels<A>& product_kernels() {
  return table<ProductKernels<A>>();
}

}  // namespace dcrnn_fast::cpu
