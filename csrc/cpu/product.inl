// The body of the product in product.h. low_rank_kernels.inl includes it; a file for each instruction set says how many bytes a vector has
// (DCRNN_VECTOR), of how many vectors of a row the registers hold six rows' sums (DCRNN_COLUMNS), and whether the operands are pairs of
// bfloat16 (DCRNN_PAIRS).

namespace dcrnn_fast::cpu::DCRNN_ISA {
namespace {

// a b + c, rounded as in the loops of several sums. In a loop of one sum alone, GCC leaves it in two instructions that round twice, and a
// row's bits would depend on how many rows are beside it.
#if DCRNN_VECTOR == 64
DCRNN_CELL __m512 fused(float a, __m512 b, __m512 c) { return _mm512_fmadd_ps(_mm512_set1_ps(a), b, c); }
DCRNN_CELL __m512d fused(double a, __m512d b, __m512d c) { return _mm512_fmadd_pd(_mm512_set1_pd(a), b, c); }
#elif DCRNN_VECTOR == 32
DCRNN_CELL __m256 fused(float a, __m256 b, __m256 c) { return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c); }
DCRNN_CELL __m256d fused(double a, __m256d b, __m256d c) { return _mm256_fmadd_pd(_mm256_set1_pd(a), b, c); }
#else
template <typename A, typename Vector>
DCRNN_CELL Vector fused(A a, Vector b, Vector c) {
  return a * b + c;
}
#endif

// A vector of operands, and how it adds its products with one group of terms to a vector of sums.
template <typename O>
struct Operand {
  using A = O;
  typedef A Vector __attribute__((vector_size(DCRNN_VECTOR), aligned(sizeof(A)), may_alias));
  using Sums = Vector;
  DCRNN_CELL Sums add(Sums sums, Vector right, const O* left) { return sums + *left * right; }
};
#if defined(DCRNN_PAIRS)
template <>
struct Operand<BFloat16> {
  using A = float;
  typedef __m512bh Vector __attribute__((aligned(2), may_alias));
  typedef __m512 Sums __attribute__((aligned(4), may_alias));
  DCRNN_CELL Sums add(Sums sums, Vector right, const BFloat16* left) {
    std::int32_t pair;
    __builtin_memcpy(&pair, left, sizeof pair);
    return _mm512_dpbf16_ps(sums, right, (__m512bh)_mm512_set1_epi32(pair));
  }
};
#endif

// The sums of R rows and N vectors stay in registers while the terms go by.
template <int R, int N, typename O>
DCRNN_CELL void block(const Product<O>& p, int64_t row, int64_t column) {
  using Vector = typename Operand<O>::Vector;
  using Sums = typename Operand<O>::Sums;
  constexpr int64_t lanes = sizeof(Sums) / sizeof(accumulator<O>), terms = group<O>;
  const O* const a = p.a + row * p.row_stride;
  const O* b = p.b + column * terms;
  Sums sums[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sums[r][n] = Sums{};
  for (int64_t k = 0; k < p.inner; k += terms, b += terms * p.b_width) {
    Vector right[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) right[n] = *reinterpret_cast<const Vector*>(b + n * lanes * terms);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const O* const left = a + r * p.row_stride + k * p.column_stride;
        if constexpr (R * N == 1 && !is_low<O>)
          sums[r][n] = fused(*left, right[n], sums[r][n]);
        else
          sums[r][n] = Operand<O>::add(sums[r][n], right[n], left);
      }
  }
  const Rows<accumulator<O>> out = p.out.at(row, column);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      Sums& to = *reinterpret_cast<Sums*>(out[r] + n * lanes);
      to = p.add ? to + sums[r][n] : sums[r][n];  // added term by term, small terms would be rounded as often as there are terms
    }
}

template <int N, typename O>
DCRNN_CELL void columns(const Product<O>& p, int64_t column) {
  int64_t row = 0;
  for (; row + 6 <= p.rows; row += 6) block<6, N>(p, row, column);
  for (; row + 3 <= p.rows; row += 3) block<3, N>(p, row, column);
  for (; row < p.rows; ++row) block<1, N>(p, row, column);
}

// Sums of many terms are sums of the sums of so many: the rounding error of one long chain of additions would grow with its length.
template <typename O>
constexpr int64_t most_terms = is_low<O> ? 256 : 32;

// The last columns, fewer than a vector has: by way of memory that holds whole vectors.
template <typename A>
DCRNN_CELL void last_columns(const Product<A>& p, int64_t column) {
  constexpr int64_t lanes = DCRNN_VECTOR / sizeof(A), most_rows = 6;
  const int64_t count = p.width - column;
  A right[most_terms<A> * lanes] = {}, sums[most_rows * lanes];
  for (int64_t k = 0; k < p.inner; ++k)
    for (int64_t n = 0; n < count; ++n) right[k * lanes + n] = p.b[k * p.b_width + column + n];
  for (int64_t row = 0; row < p.rows; row += most_rows) {
    const int64_t rows = std::min(most_rows, p.rows - row);
    columns<1>(
        Product<A>{rows, lanes, p.inner, p.a + row * p.row_stride, p.row_stride, p.column_stride, right, lanes, {sums, lanes}, false}, 0);
    for (int64_t r = 0; r < rows; ++r) {
      A* const to = p.out[row + r] + column;
      for (int64_t n = 0; n < count; ++n) to[n] = p.add ? to[n] + sums[r * lanes + n] : sums[r * lanes + n];
    }
  }
}

template <typename O>
DCRNN_CELL void whole_product(const Product<O>& p) {
  constexpr int64_t lanes = DCRNN_VECTOR / sizeof(accumulator<O>);
  int64_t column = 0;
  for (; column + DCRNN_COLUMNS * lanes <= p.width; column += DCRNN_COLUMNS * lanes) columns<DCRNN_COLUMNS>(p, column);
  for (; column + 2 * lanes <= p.width; column += 2 * lanes) columns<2>(p, column);
  for (; column + lanes <= p.width; column += lanes) columns<1>(p, column);
  if constexpr (!is_low<O>)
    if (column < p.width) last_columns(p, column);
}

// The sums of a few columns stay in the second-level cache while the terms go by.
template <typename O>
void product(const Product<O>& p) {
  constexpr int64_t most_columns = DCRNN_COLUMNS * DCRNN_VECTOR / sizeof(accumulator<O>);
  Product<O> part = p;
  for (int64_t column = 0; column < p.width; column += most_columns) {
    part.width = std::min(most_columns, p.width - column), part.out = p.out.at(0, column);
    for (int64_t first = 0; first < p.inner; first += most_terms<O>) {
      part.a = p.a + first * p.column_stride, part.b = p.b + first * p.b_width + column * group<O>;
      part.inner = std::min(most_terms<O>, p.inner - first), part.add = p.add || first > 0;
      whole_product(part);
    }
  }
}

#if !defined(DCRNN_PAIRS)
// A line of the cache is written at once, from four values of each of 16 rows.
template <typename A>
void transpose(const A* const* rows, int64_t count, int64_t inner, A* to, int64_t width) {
  constexpr int64_t most = 16;
  for (int64_t first = 0; first < count; first += most) {
    const int64_t end = std::min(first + most, count);
    int64_t k = 0;
#if __has_builtin(__builtin_shufflevector)
    typedef A Four __attribute__((vector_size(4 * sizeof(A)), aligned(sizeof(A)), may_alias));
    for (; end - first == most && k + 4 <= inner; k += 4)
#pragma GCC unroll 4
      for (int64_t i = first; i < end; i += 4) {
        const auto at = [&](int64_t row) { return reinterpret_cast<const Four*>(rows[i + row] + k); };
        const Four even = __builtin_shufflevector(*at(0), *at(1), 0, 4, 1, 5), odd = __builtin_shufflevector(*at(0), *at(1), 2, 6, 3, 7);
        const Four even2 = __builtin_shufflevector(*at(2), *at(3), 0, 4, 1, 5), odd2 = __builtin_shufflevector(*at(2), *at(3), 2, 6, 3, 7);
        const auto column = [&](int64_t term) { return reinterpret_cast<Four*>(to + (k + term) * width + i); };
        *column(0) = __builtin_shufflevector(even, even2, 0, 1, 4, 5);
        *column(1) = __builtin_shufflevector(even, even2, 2, 3, 6, 7);
        *column(2) = __builtin_shufflevector(odd, odd2, 0, 1, 4, 5);
        *column(3) = __builtin_shufflevector(odd, odd2, 2, 3, 6, 7);
      }
#endif
    for (; k < inner; ++k)
      for (int64_t i = first; i < end; ++i) to[k * width + i] = rows[i][k];
  }
}

template <typename A>
constexpr Products<A> product_passes = {product<A>, transpose<A>};
#endif

}  // namespace

#if !defined(DCRNN_PAIRS)
template <>
const Products<float>& table<Products<float>>() {
  return product_passes<float>;
}
template <>
const Products<double>& table<Products<double>>() {
  return product_passes<double>;
}
#endif

}  // namespace dcrnn_fast::cpu::DCRNN_ISA
