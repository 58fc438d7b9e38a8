// The bodies of the passes in low_rank_kernels.h. A file for each instruction set includes it after elementwise.inl, and says how many
// bytes a vector has (DCRNN_VECTOR) and how many vectors of a row the registers hold beside those of six rows' sums (DCRNN_COLUMNS).
namespace dcrnn_fast::cpu::DCRNN_ISA {
namespace {

template <typename A>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(DCRNN_VECTOR), aligned(4), may_alias));
};
template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(DCRNN_VECTOR), aligned(8), may_alias));
};

// The sums of R rows and N vectors stay in registers while the inner dimension goes by.
template <int R, int N, typename A>
DCRNN_CELL void block(int64_t inner, const A* a, int64_t row_stride, int64_t column_stride, Rows<const A> b, Rows<A> out, bool add) {
  using Vector = typename Lanes<A>::Vector;
  constexpr int lanes = sizeof(Vector) / sizeof(A);
  Vector sums[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sums[r][n] = Vector{};
  for (int64_t k = 0; k < inner; ++k) {
    Vector right[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) right[n] = *reinterpret_cast<const Vector*>(b[k] + n * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const A left = a[r * row_stride + k * column_stride];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[r][n] += left * right[n];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      Vector& to = *reinterpret_cast<Vector*>(out[r] + n * lanes);
      to = add ? to + sums[r][n] : sums[r][n];  // added term by term, small terms would be rounded as often as there are terms
    }
}

template <int N, typename A>
DCRNN_CELL void columns(const Product<A>& p, int64_t column) {
  const Rows<const A> b = p.b.at(0, column);
  const auto rows = [&]<int R>(int64_t& row) {
    for (; row + R <= p.rows; row += R)
      block<R, N>(p.inner, p.a + row * p.row_stride, p.row_stride, p.column_stride, b, p.out.at(row, column), p.add);
  };
  int64_t row = 0;
  rows.template operator()<6>(row);
  rows.template operator()<3>(row);
  rows.template operator()<1>(row);
}

template <typename A>
void product(const Product<A>& p) {
  constexpr int lanes = DCRNN_VECTOR / sizeof(A);
  int64_t column = 0;
  for (; column + DCRNN_COLUMNS * lanes <= p.width; column += DCRNN_COLUMNS * lanes) columns<DCRNN_COLUMNS>(p, column);
  for (; column + 2 * lanes <= p.width; column += 2 * lanes) columns<2>(p, column);
  for (; column < p.width; column += lanes) columns<1>(p, column);
}

// The products of a few rows and columns stay in the first-level cache until their element-wise pass.
template <int G, bool keep, typename A>
void step(const LowRankStep<A>& s) {
  constexpr int64_t most_rows = 12, most_columns = DCRNN_COLUMNS * DCRNN_VECTOR / sizeof(A);
  A products[G][most_rows][most_columns];
  for (int64_t column = 0; column < s.plane; column += most_columns) {
    const int64_t width = std::min(most_columns, s.plane - column);
    const A *const bias = s.bias + column, *const gate_bias = bias + s.plane;
    for (int64_t row = 0; row < s.rows; row += most_rows) {
      const int64_t rows = std::min(most_rows, s.rows - row);
      for (int g = 0; g < G; ++g)
        product<A>({rows, width, s.rank, s.z[row] + g * s.rank_plane, s.z.stride, 1,
                    Rows<const A>{s.weight + g * s.rank * s.plane + column, s.plane}, Rows<A>{&products[g][0][0], most_columns}, false});
      for (int64_t r = 0; r < rows; ++r) {
        const A *const a_product = products[0][r], *const gate_product = products[G - 1][r];
        const A* const x0 = s.x0[row + r] + column;
        const A* const state = s.state[row + r] + column;
        A* const next = s.next[row + r] + column;
        A* const activations = keep ? s.activations[row + r] + column : nullptr;
#pragma GCC ivdep
        for (int64_t d = 0; d < width; ++d) {
          const A a = a_product[d] + bias[d];
          const A g = G == 2 ? sigmoid(gate_product[d] + gate_bias[d]) : A(1);
          if constexpr (keep) {
            activations[d] = a;
            if constexpr (G == 2) activations[s.plane + d] = g;
          }
          next[d] = next_state<A>(state[d], x0[d], a, g);
        }
      }
    }
  }
}

template <int G, typename A>
void low_rank_step(const LowRankStep<A>& s) {
  if (s.activations)
    step<G, true>(s);
  else
    step<G, false>(s);
}

// Column sums are sums of the sums of a few rows: the rounding error then grows with their number, not with the tile.
template <int G, typename A>
void low_rank_gradient(const LowRankGradient<A>& s) {
  constexpr int64_t most_rows = 16, most_columns = DCRNN_COLUMNS * DCRNN_VECTOR / sizeof(A);
  A few[G][most_columns];
  for (int64_t column = 0; column < s.plane; column += most_columns) {
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
      }
      for (int g = 0; g < G; ++g)
        for (int64_t i = 0; i < width; ++i) s.sums[g * s.plane + column + i] += few[g][i];
    }
  }
}

}  // namespace

template <typename A>
const LowRankKernels<A>& low_rank_kernels() {
  static constexpr LowRankKernels<A> table = {product<A>, low_rank_step<2, A>, low_rank_step<1, A>, low_rank_gradient<2, A>,
                                              low_rank_gradient<1, A>};
  return table;
}

template const LowRankKernels<float>& low_rank_kernels<float>();
template const LowRankKernels<double>& low_rank_kernels<double>();

}  // namespace dcrnn_fast::cpu::DCRNN_ISA
