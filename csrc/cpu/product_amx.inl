// The product of bfloat16 in tiles of AMX: 16 rows of 32 terms times 32 terms of 16 columns, added to 16 rows of 16 sums. product.inl
// includes it. A row has the same bits whatever rows are beside it here too.

namespace dcrnn_fast::cpu::DCRNN_ISA {
namespace {

// The shapes of a thread's tiles, from the first product on until this goes: PyTorch's own products set theirs.
class AmxTiles {
 public:
  AmxTiles() = default;
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
  ~AmxTiles() {
    if (terms_) _tile_release();
  }

  // Sums of `first` rows in the tiles 0 and 1, of `second` rows in 2 and 3; their operands in 4 and 5; of the columns in 6 and 7.
  void shape(int64_t first, int64_t second, int64_t terms) {
    if (first == first_ && second == second_ && terms == terms_) return;
    first_ = first, second_ = second, terms_ = terms;
    struct alignas(64) {
      std::uint8_t palette = 1, start = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } shapes;
    const auto set = [&](int tile, int64_t rows, int64_t bytes) { shapes.rows[tile] = rows, shapes.row_bytes[tile] = rows ? bytes : 0; };
    for (const int tile : {0, 1}) set(tile, first, 64), set(tile + 2, second, 64), set(tile + 6, terms / 2, 64);
    set(4, first, terms * sizeof(BFloat16)), set(5, second, terms * sizeof(BFloat16));
    __asm__ volatile("" : : "r"(&shapes) : "memory");  // the intrinsics do not say what memory they read and write
    _tile_loadconfig(&shapes);
  }

 private:
  int64_t first_ = 0, second_ = 0, terms_ = 0;
};

// R times 16 rows and N times 16 columns; `terms` of them at a time.
template <int R, int N>
DCRNN_CELL void tile_block(const Product<BFloat16>& p, int64_t terms, int64_t column) {
  float* const out = p.out[0] + column;
  float* const below = R > 1 ? p.out[16] + column : nullptr;
  const int64_t out_bytes = p.out.stride * sizeof(float), a_bytes = p.row_stride * sizeof(BFloat16), b_bytes = p.b_width * 4;
  __asm__ volatile("" : : : "memory");
  if (p.add) {
    _tile_loadd(0, out, out_bytes);
    if constexpr (N > 1) _tile_loadd(1, out + 16, out_bytes);
    if constexpr (R > 1) _tile_loadd(2, below, out_bytes);
    if constexpr (R > 1 && N > 1) _tile_loadd(3, below + 16, out_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (R > 1) _tile_zero(2);
    if constexpr (R > 1) _tile_zero(3);
  }
  for (int64_t k = 0; k < p.inner; k += terms) {
    const BFloat16 *const a = p.a + k, *const b = p.b + k * p.b_width + column * 2;
    _tile_loadd(4, a, a_bytes);
    _tile_loadd(6, b, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N > 1) {
      _tile_loadd(7, b + 32, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (R > 1) {
      _tile_loadd(5, a + 16 * p.row_stride, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (N > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, out_bytes);
  if constexpr (N > 1) _tile_stored(1, out + 16, out_bytes);
  if constexpr (R > 1) _tile_stored(2, below, out_bytes);
  if constexpr (R > 1 && N > 1) _tile_stored(3, below + 16, out_bytes);
  __asm__ volatile("" : : : "memory");
}

// A tile's rows hold terms side by side. A left operand that has its rows side by side is turned first, so many terms at a time.
constexpr int64_t tile_terms = 32, tile_rows = 32, turned_terms = 256;

void product_in_tiles(AmxTiles& tiles, const Product<BFloat16>& p) {
  alignas(64) float turned[tile_rows * turned_terms / 2];  // pairs, as bits
  for (int64_t k = 0; k < p.inner;) {
    const int64_t left = p.inner - k, terms = std::min(left, tile_terms);
    const int64_t inner = p.column_stride == 1 ? left / terms * terms : std::min(left / terms * terms, turned_terms);
    for (int64_t row = 0; row < p.rows; row += tile_rows) {
      const int64_t rows = std::min(tile_rows, p.rows - row), first = std::min<int64_t>(rows, 16), second = rows - first;
      Product<BFloat16> part{rows,
                             p.width,
                             inner,
                             p.a + row * p.row_stride + k * p.column_stride,
                             p.row_stride,
                             p.column_stride,
                             p.b + k * p.b_width,
                             p.b_width,
                             p.out.at(row),
                             p.add || k > 0};
      if (p.column_stride != 1) {
        for (int64_t pair = 0; pair < inner / 2; pair += 16) {
          const float* pairs[16];
          const int64_t count = std::min<int64_t>(16, inner / 2 - pair);
          for (int64_t i = 0; i < count; ++i) pairs[i] = reinterpret_cast<const float*>(part.a + 2 * (pair + i) * p.column_stride);
          transpose(pairs, count, rows, turned + pair, turned_terms / 2);
        }
        part.a = reinterpret_cast<const BFloat16*>(turned), part.row_stride = turned_terms;
      }
      for (int64_t r = 0; r < rows; ++r) show_to_sanitizer(part.a + r * part.row_stride, inner), show_to_sanitizer(part.out[r], p.width);
      for (int64_t pair = 0; pair < inner / 2; ++pair) show_to_sanitizer(part.b + 2 * pair * p.b_width, 2 * p.width);
      tiles.shape(first, second, terms);
      for (int64_t column = 0; column < p.width; column += 32) {
        const bool two = column + 16 < p.width;
        if (second)
          two ? tile_block<2, 2>(part, terms, column) : tile_block<2, 1>(part, terms, column);
        else
          two ? tile_block<1, 2>(part, terms, column) : tile_block<1, 1>(part, terms, column);
      }
    }
    k += inner;
  }
}

}  // namespace
}  // namespace dcrnn_fast::cpu::DCRNN_ISA
