// The bodies of the passes in low_rank_kernels.h. A file for each instruction set includes it, and says what product.inl asks for.
#include "../cell.h"
#include "product.inl"
#if defined(DCRNN_PAIRS)
#include "product_amx.inl"
#endif

namespace dcrnn_fast::cpu::DCRNN_ISA {
namespace {

// Makes products, of bfloat16 in tiles where the CPU has them.
template <typename O>
struct Multiplier {
  static constexpr int64_t rows = 12;  // whose sums of a pass stay in the first-level cache
  void operator()(const Product<O>& p) const { product_in_vectors(p); }
};
#if defined(DCRNN_PAIRS)
template <>
struct Multiplier<BFloat16> {
  static constexpr int64_t rows = tile_rows;
  void operator()(const Product<BFloat16>& p) { multiplies_tiles() ? product_in_tiles(tiles, p) : product_in_vectors(p); }
  AmxTiles tiles;
};
#endif

template <typename O>
void product(const Product<O>& p) {
  Multiplier<O>{}(p);
}

// Whole vectors of A as operands, where these are of another type.
#if defined(DCRNN_PAIRS)
DCRNN_CELL void narrow(const float* from, BFloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
}
#endif
template <typename A>
DCRNN_CELL void narrow(const A*, A*, int64_t) {}

#if defined(DCRNN_PAIRS)
typedef std::uint16_t Bits __attribute__((may_alias));
typedef std::uint32_t Pair __attribute__((may_alias));

void over_rows(Rows<const BFloat16> from, int64_t rows, int64_t width, BFloat16* to) {
  for (int64_t row = 0; row < rows; row += 2, to += 2 * width) {
    // as integers, which the compiler knows how to put side by side
    const auto* const first = reinterpret_cast<const Bits*>(from[row]);
    const auto* const second = reinterpret_cast<const Bits*>(from[row + 1 < rows ? row + 1 : row]);
    const std::uint32_t there = row + 1 < rows ? 0xffff0000u : 0;
    auto* const pairs = reinterpret_cast<Pair*>(to);
#pragma GCC ivdep
    for (int64_t i = 0; i < width; ++i) pairs[i] = first[i] | (std::uint32_t(second[i]) << 16 & there);
  }
}
#else
constexpr std::nullptr_t over_rows = nullptr;
#endif

// The products of a few rows and columns stay in the first-level cache until their element-wise pass.
template <int G, bool keep, typename O>
void step(const LowRankStep<O>& s) {
  using A = accumulator<O>;
  constexpr int64_t most_rows = Multiplier<O>::rows, most_columns = DCRNN_COLUMNS * DCRNN_VECTOR / sizeof(A);
  A products[G][most_rows][most_columns];
  Multiplier<O> multiply;
  for (int64_t column = s.first; column < s.plane; column += most_columns) {
    const int64_t width = std::min(most_columns, s.plane - column);
    const A *const bias = s.bias + column, *const gate_bias = bias + s.plane;
    for (int64_t row = 0; row < s.rows; row += most_rows) {
      const int64_t rows = std::min(most_rows, s.rows - row);
      for (int g = 0; g < G; ++g)
        multiply({rows, width, s.rank, s.z[row] + g * s.rank_plane, s.z.stride, 1, s.weight + g * s.rank * s.plane + column * group<O>,
                  s.plane, Rows<A>{&products[g][0][0], most_columns}, false});
      for (int64_t r = 0; r < rows; ++r) {
        const A *const a_product = products[0][r], *const gate_product = products[G - 1][r];
        const A* const x0 = s.x0[row + r] + column;
        const A* const state = s.state[row + r] + column;
        A* const next = s.next[row + r] + column;
        A* const activations = keep ? s.activations[row + r] + column : nullptr;
        O* const low = is_low<O> ? s.low[row + r] + column : nullptr;
#pragma GCC ivdep
        for (int64_t d = 0; d < width; ++d) {
          const A a = a_product[d] + bias[d];
          const A g = G == 2 ? sigmoid(gate_product[d] + gate_bias[d]) : A(1);
          if constexpr (keep) {
            activations[d] = a;
            if constexpr (G == 2) activations[s.plane + d] = g;
          }
          const A h = next_state<A>(state[d], x0[d], a, g);
          next[d] = h;
        }
        narrow(next, low, width);
      }
    }
  }
  if constexpr (is_low<O>)
    for (int64_t row = 0; s.dim < grouped<O>(s.dim) && row < s.rows; ++row) s.low[row][s.dim] = O(0.f);
}

template <int G, typename O>
void low_rank_step(const LowRankStep<O>& s) {
  if (s.activations)
    step<G, true>(s);
  else
    step<G, false>(s);
}

// Column sums are sums of the sums of a few rows: the rounding error then grows with their number, not with the tile.
template <int G, typename O>
void low_rank_gradient(const LowRankGradient<O>& s) {
  using A = accumulator<O>;
  constexpr int64_t most_rows = 16, most_columns = DCRNN_COLUMNS * DCRNN_VECTOR / sizeof(A);
  A few[G][most_columns];
  for (int64_t column = s.first; column < s.plane; column += most_columns) {
    const int64_t width = std::min(most_columns, s.plane - column);
    for (int64_t first = 0; first < s.rows; first += most_rows) {
      for (int g = 0; g < G; ++g) std::fill_n(few[g], width, A(0));
      for (int64_t row = first; row < std::min(first + most_rows, s.rows); ++row) {
        const A *const activations = s.activations[row] + column, *const x0 = s.x0[row] + column, *const d = s.d[row] + column;
        A *const dx0 = s.dx0[row] + column, *const products = s.products[row] + column;
#pragma GCC ivdep
        for (int64_t i = 0; i < width; ++i) {
          const StepGradient<A> gradient = step_gradient<A>(d[i], x0[i], activations[i], G == 2 ? activations[s.plane + i] : A(1));
          dx0[i] += gradient.dx0;
          products[i] = gradient.da;
          few[0][i] += gradient.da;
          if constexpr (G == 2) {
            products[s.plane + i] = gradient.dq;
            few[1][i] += gradient.dq;
          }
        }
        for (int g = 0; is_low<O> && g < G; ++g) narrow(products + g * s.plane, s.low[row] + g * s.plane + column, width);
      }
      for (int g = 0; g < G; ++g)
        for (int64_t i = 0; i < width; ++i) s.sums[g * s.plane + column + i] += few[g][i];
    }
  }
  if constexpr (is_low<O>)
    for (int64_t row = 0; s.dim < grouped<O>(s.dim) && row < s.rows; ++row)
      for (int g = 0; g < G; ++g) s.low[row][g * s.plane + s.dim] = O(0.f);
}

template <typename O>
constexpr LowRankKernels<O> low_rank_passes = {
    product<O>, low_rank_step<2, O>, low_rank_step<1, O>, low_rank_gradient<2, O>, low_rank_gradient<1, O>, over_rows};

}  // namespace

#if defined(DCRNN_PAIRS)
const LowRankKernels<BFloat16>& low_rank_kernels() { return low_rank_passes<BFloat16>; }
#else
template <>
const LowRankKernels<float>& table<LowRankKernels<float>>() {
  return low_rank_passes<float>;
}
template <>
const LowRankKernels<double>& table<LowRankKernels<double>>() {
  return low_rank_passes<double>;
}
#endif

}  // namespace dcrnn_fast::cpu::DCRNN_ISA
