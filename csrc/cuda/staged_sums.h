// A tile's sums in shared memory. After a product each thread holds pairs of columns of many rows; from here it reads runs of neighbouring
// columns, so that it can access global memory by 16 bytes.
#pragma once

#include "multiply.h"

namespace dcrnn_fast::cuda {

template <typename Tile>
struct StagedSums {
  using A = typename Tile::A;
  static constexpr int each = chunk_values<A>;  // of an access
  unsigned char* const memory;                  // [rows, columns + 8]

  static constexpr int bytes(int rows) { return rows * (Tile::columns + 8) * static_cast<int>(sizeof(A)); }

  // Rows are eight values longer than a tile's, so that a warp's writes, of four rows, reach all memory banks. In every other row and block
  // of 32 columns, neighbouring groups of four columns have changed places: a thread that reads eight floats as two groups meets one whose
  // first group lies in the other's banks.
  DCRNN_DEVICE unsigned char* place(int row, int column) const {
    return memory + (row * (Tile::columns + 8) + (column ^ ((column / 32 + row) % 2 * 4))) * static_cast<int>(sizeof(A));
  }

  DCRNN_DEVICE void take(const typename Tile::Sums& sums) const {
#pragma unroll
    for (int m = 0; m < Tile::blocks_m; ++m)
#pragma unroll
      for (int n = 0; n < Tile::blocks_n; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Pack<A, 2> pair{{sums[m][n][2 * half], sums[m][n][2 * half + 1]}};
          const int row = Tile::first_row() + m * 16 + half * 8 + Tile::lane() / 4;
          write_shared(place(row, Tile::first_column() + n * 8 + Tile::lane() % 4 * 2), pair);
        }
  }

  template <int count>
  DCRNN_DEVICE void read(A (&out)[count], int row, int column) const {
#pragma unroll
    for (int i = 0; i < count; i += each) {
      const auto pack = read_shared<Pack<A, each>>(place(row, column + i));
#pragma unroll
      for (int j = 0; j < each; ++j) out[i + j] = pack.values[j];
    }
  }

  template <int count>
  DCRNN_DEVICE void write(const A (&values)[count], int row, int column) const {
#pragma unroll
    for (int i = 0; i < count; i += each) {
      Pack<A, each> pack;
#pragma unroll
      for (int j = 0; j < each; ++j) pack.values[j] = values[i + j];
      write_shared(place(row, column + i), pack);
    }
  }

  DCRNN_DEVICE A value(int row, int column) const { return read_shared<A>(place(row, column)); }
};

}  // namespace dcrnn_fast::cuda
