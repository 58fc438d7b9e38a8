// The passes of the low-rank cell over a tile of rows, compiled once for each instruction set from low_rank_kernels.inl. They compute in A,
// float or double, whatever the type of the tensors. A row is padded to whole vectors: `padded` values, of which those past the end hold
// nothing of use. Strides are in elements.
#pragma once

#include <cstdint>

#include "elementwise.h"
#include "isa.h"

namespace dcrnn_fast::cpu {

// The widest vector holds so many floats; rows are padded to a multiple.
constexpr int64_t padding = 16;
constexpr int64_t padded(int64_t values) { return (values + padding - 1) / padding * padding; }

// out [rows, width] = or += a [rows, inner] b [inner, width]. `a` may have any strides. `width` is padded.
template <typename A>
struct Product {
  int64_t rows, width, inner;
  const A* a;
  int64_t row_stride, column_stride;
  Rows<const A> b;
  Rows<A> out;
  bool add;
};

// One step of the cell: a = W z + b, g = sigmoid(V y + c), next = state + g x0 a. z and y lie `rank_plane` elements apart. weight is W and
// V transposed, [G, r, plane]. Writes a and g to `activations` where it is not null, one `plane` elements after the other.
template <typename A>
struct LowRankStep {
  int64_t rows, plane, rank, rank_plane;
  Rows<const A> z;
  const A* weight;
  const A* bias;  // [G, plane]
  Rows<const A> x0, state;
  Rows<A> next, activations;
};

// From d = dL/dh': da and dq to `products`, one `plane` elements after the other, their column sums to `sums` [G, plane], and x0's
// gradient.
template <typename A>
struct LowRankGradient {
  int64_t rows, plane;
  Rows<const A> activations, x0, d;
  Rows<A> dx0, products;
  A* sums;
};

template <typename A>
struct LowRankKernels {
  void (*product)(const Product<A>&);
  void (*step_gated)(const LowRankStep<A>&);
  void (*step_cross)(const LowRankStep<A>&);
  void (*gradient_gated)(const LowRankGradient<A>&);
  void (*gradient_cross)(const LowRankGradient<A>&);
};

namespace baseline {
template <typename A>
const LowRankKernels<A>& low_rank_kernels();
}
namespace avx2 {
template <typename A>
const LowRankKernels<A>& low_rank_kernels();
}
namespace avx512 {
template <typename A>
const LowRankKernels<A>& low_rank_kernels();
}

template <typename A>
const LowRankKernels<A>& low_rank_kernels() {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512:
      return avx512::low_rank_kernels<A>();
    case Isa::avx2:
      return avx2::low_rank_kernels<A>();
    case Isa::baseline:
      break;
  }
#endif
  return baseline::low_rank_kernels<A>();
}

}  // namespace dcrnn_fast::cpu
