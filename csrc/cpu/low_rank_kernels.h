// The passes of the low-rank cell over a tile of rows, compiled once for each instruction set from low_rank_kernels.inl.
//
// They compute in A, float or double. The operands of products are of type O: A itself, or bfloat16 on a CPU that multiplies pairs of them
// and adds both products to a float. A row is padded to whole vectors: of `padded` values, those past the end hold nothing of use. Strides
// are in elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "elementwise.h"
#include "isa.h"
#include "product.h"

namespace dcrnn_fast::cpu {

// One step of the cell from unit `first` on: a = W z + b, g = sigmoid(V y + c), next = state + g x0 a. z and y lie `rank_plane` elements
// apart. weight is W and V transposed, each [rank, plane]; `rank` is grouped. Writes a and g to `activations` where it is not null, one
// `plane` elements after the other, and `next` as an operand to `low` where O is not A.
template <typename O>
struct LowRankStep {
  using A = accumulator<O>;
  int64_t rows, first, dim, plane, rank, rank_plane;
  Rows<const O> z;
  const O* weight;
  const A* bias;  // [G, plane]
  Rows<const A> x0, state;
  Rows<A> next, activations;
  Rows<O> low;
};

// From d = dL/dh' of the units from `first` on: da and dq to `products`, one `plane` elements after the other, their column sums to `sums`
// [G, plane], and x0's gradient. Writes da and dq as operands to `low` where O is not A.
template <typename O>
struct LowRankGradient {
  using A = accumulator<O>;
  int64_t rows, first, dim, plane;
  Rows<const A> activations, x0, d;
  Rows<A> dx0, products;
  Rows<O> low;
  A* sums;
};

template <typename O>
struct LowRankKernels {
  void (*product)(const Product<O>&);
  void (*step_gated)(const LowRankStep<O>&);
  void (*step_cross)(const LowRankStep<O>&);
  void (*gradient_gated)(const LowRankGradient<O>&);
  void (*gradient_cross)(const LowRankGradient<O>&);
  // Writes rows as a right operand over the rows: pairs of them side by side, and zeros beside an odd last one. Null where O is A: rows of
  // A are such an operand as they lie.
  void (*over_rows)(Rows<const O> from, int64_t rows, int64_t width, O* to);
};

// The type of the products' operands for tensors of type T, where the CPU has such products: see with_operands in low_rank.h.
#if defined(__x86_64__)
template <typename T>
using Operands = std::conditional_t<std::is_same_v<T, BFloat16>, BFloat16, accumulator<T>>;

namespace avx512_bf16 {
const LowRankKernels<BFloat16>& low_rank_kernels();
}
#else
template <typename T>
using Operands = accumulator<T>;
#endif

template <typename O>
const LowRankKernels<O>& low_rank_kernels() {
#if defined(__x86_64__)
  if constexpr (is_low<O>)
    return avx512_bf16::low_rank_kernels();
  else
#endif
    return table<LowRankKernels<O>>();
}

}  // namespace dcrnn_fast::cpu
