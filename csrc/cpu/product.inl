// The body of the product in product.h. low_rank_kernels.inl includes it; a file for each instruction set says how many bytes a vector has
// (DCRNN_VECTOR), of how many vectors of a row the registers hold six rows' sums (DCRNN_COLUMNS), and whether the operands are pairs of
// bfloat16 (DCRNN_PAIRS).

namespace dcrnn_fast::cpu::DCRNN_ISA {
namespace {

// A vector of operands, and how it adds its products with one group of terms to a vector of sums. AVX2 and AVX-512 multiply and add in one
// instruction. Left to itself, the compiler takes two in some loops, which round twice: a row's bits would depend on the rows beside it.
template <typename O>
struct Operand {
  typedef O Vector __attribute__((vector_size(DCRNN_VECTOR)));
  using Sums = Vector;
  DCRNN_CELL Sums add(Sums sums, Vector right, const O* left) { return sums + *left * right; }
};
#if DCRNN_VECTOR == 64
template <>
struct Operand<float> {
  using Vector = __m512;
  using Sums = Vector;
  DCRNN_CELL Sums add(Sums sums, Vector right, const float* left) { return _mm512_fmadd_ps(_mm512_set1_ps(*left), right, sums); }
};
template <>
struct Operand<double> {
  using Vector = __m512d;
  using Sums = Vector;
  DCRNN_CELL Sums add(Sums sums, Vector right, const double* left) { return _mm512_fmadd_pd(_mm512_set1_pd(*left), right, sums); }
};
#elif DCRNN_VECTOR == 32
template <>
struct Operand<float> {
  using Vector = __m256;
  using Sums = Vector;
  DCRNN_CELL Sums add(Sums sums, Vector right, const float* left) { return _mm256_fmadd_ps(_mm256_set1_ps(*left), right, sums); }
};
template <>
struct Operand<double> {
  using Vector = __m256d;
  using Sums = Vector;
  DCRNN_CELL Sums add(Sums sums, Vector right, const double* left) { return _mm256_fmadd_pd(_mm256_set1_pd(*left), right, sums); }
};
#endif
#if defined(DCRNN_PAIRS)
template <>
struct Operand<BFloat16> {
  using Vector = __m512bh;
  using Sums = __m512;
  DCRNN_CELL Sums add(Sums sums, Vector right, const BFloat16* left) {
    std::int32_t pair;
    __builtin_memcpy(&pair, left, sizeof pair);
    return _mm512_dpbf16_ps(sums, right, (__m512bh)_mm512_set1_epi32(pair));
  }
};
#endif

// From and to memory that is not aligned.
template <typename Vector>
DCRNN_CELL Vector load(const void* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}
template <typename Vector>
DCRNN_CELL void store(Vector vector, void* to) {
  __builtin_memcpy(to, &vector, sizeof vector);
}

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
    for (int n = 0; n < N; ++n) right[n] = load<Vector>(b + n * lanes * terms);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[r][n] = Operand<O>::add(sums[r][n], right[n], a + r * p.row_stride + k * p.column_stride);
  }
  const Rows<accumulator<O>> out = p.out.at(row, column);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      accumulator<O>* const to = out[r] + n * lanes;
      // added term by term, small terms would be rounded as often as there are terms
      store(p.add ? load<Sums>(to) + sums[r][n] : sums[r][n], to);
    }
}

template <int N, typename O>
DCRNN_CELL void columns(const Product<O>& p, int64_t column) {
  int64_t row = 0;
  for (; row + 6 <= p.rows; row += 6) block<6, N>(p, row, column);
  for (; row + 3 <= p.rows; row += 3) block<3, N>(p, row, column);
  for (; row < p.rows; ++row) block<1, N>(p, row, column);
}

// A sum of many terms is the sum of the sums of so many: the rounding error of one long chain of additions would grow with its length. The
// right operand of so many terms stays in the first-level cache.
template <typename O>
constexpr int64_t most_terms = is_low<O> ? 256 : 96;
// The same where the values of a row of the left operand lie far apart, so that each takes a line of that cache.
template <typename O>
constexpr int64_t few_terms = is_low<O> ? 256 : 32;

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
void product_in_vectors(const Product<O>& p) {
  constexpr int64_t most_columns = std::max<int64_t>(DCRNN_COLUMNS * DCRNN_VECTOR, 64) / sizeof(accumulator<O>);  // a line at least
  const int64_t terms = p.column_stride * sizeof(O) > 256 ? few_terms<O> : most_terms<O>;
  Product<O> part = p;
  for (int64_t column = 0; column < p.width; column += most_columns) {
    part.width = std::min(most_columns, p.width - column), part.out = p.out.at(0, column);
    for (int64_t first = 0; first < p.inner; first += terms) {
      part.a = p.a + first * p.column_stride, part.b = p.b + first * p.b_width + column * group<O>;
      part.inner = std::min(terms, p.inner - first), part.add = p.add || first > 0;
      whole_product(part);
    }
  }
}

// Of 16 rows, four values each fill lines of the cache.
template <typename A>
void transpose(const A* const* rows, int64_t count, int64_t inner, A* to, int64_t width) {
  int64_t k = 0;
#if __has_builtin(__builtin_shufflevector)
  typedef A Four __attribute__((vector_size(4 * sizeof(A))));
  for (; count == 16 && k + 4 <= inner; k += 4)
#pragma GCC unroll 4
    for (int64_t i = 0; i < 16; i += 4) {
      const Four one = load<Four>(rows[i] + k), two = load<Four>(rows[i + 1] + k);
      const Four three = load<Four>(rows[i + 2] + k), last = load<Four>(rows[i + 3] + k);
      const Four even = __builtin_shufflevector(one, two, 0, 4, 1, 5), odd = __builtin_shufflevector(one, two, 2, 6, 3, 7);
      const Four even2 = __builtin_shufflevector(three, last, 0, 4, 1, 5), odd2 = __builtin_shufflevector(three, last, 2, 6, 3, 7);
      A* const at = to + k * width + i;
      store(__builtin_shufflevector(even, even2, 0, 1, 4, 5), at);
      store(__builtin_shufflevector(even, even2, 2, 3, 6, 7), at + width);
      store(__builtin_shufflevector(odd, odd2, 0, 1, 4, 5), at + 2 * width);
      store(__builtin_shufflevector(odd, odd2, 2, 3, 6, 7), at + 3 * width);
    }
#endif
  for (; k < inner; ++k)
    for (int64_t i = 0; i < count; ++i) to[k * width + i] = rows[i][k];
}

#if !defined(DCRNN_PAIRS)
template <typename A>
constexpr ProductKernels<A> product_passes = {product_in_vectors<A>, transpose<A>};
#endif

}  // namespace

#if !defined(DCRNN_PAIRS)
template <>
const ProductKernels<float>& table<ProductKernels<float>>() {
  return product_passes<float>;
}
template <>
const ProductKernels<double>& table<ProductKernels<double>>() {
  return product_passes<double>;
}
#endif

}  // namespace dcrnn_fast::cpu::DCRNN_ISA
