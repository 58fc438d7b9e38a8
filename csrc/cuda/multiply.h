// The product of two tiles in shared memory, one stage of a pipeline: left rows of 128 bytes times as many values of the right matrix.
// Tensor cores and exact products leave the sums in the same places. In a warp's block of 16 rows and 8 columns, lane l has columns 2 (l %
// 4) and 2 (l % 4) + 1 of row l / 4 in acc[0] and acc[1], and of row l / 4 + 8 in acc[2] and acc[3].
#pragma once

#include "memory.h"

namespace dcrnn_fast::cuda {

// How a block's warps divide a tile: warps_m by warps_n warps, each with blocks_m * 16 rows and blocks_n * 8 columns.
template <typename M, int warps_m_, int warps_n_, int blocks_m_, int blocks_n_>
struct Tiling {
  using Value = typename M::Value;
  using A = accumulator<Value>;
  static constexpr int warps_m = warps_m_, warps_n = warps_n_, blocks_m = blocks_m_, blocks_n = blocks_n_;
  static constexpr int threads = 32 * warps_m * warps_n, rows = warps_m * blocks_m * 16, columns = warps_n * blocks_n * 8;
  static constexpr int warp_columns = blocks_n * 8;
  static constexpr int rows_at_once = threads / chunks;  // rows that the threads copy together, a chunk each
  static_assert(blocks_n % 2 == 0);

  DCRNN_DEVICE static int lane() { return threadIdx.x % 32; }
  DCRNN_DEVICE static int first_row() { return threadIdx.x / 32 / warps_n * blocks_m * 16; }
  DCRNN_DEVICE static int first_column() { return threadIdx.x / 32 % warps_n * warp_columns; }
  using Sums = A[blocks_m][blocks_n][4];

  // This thread's sums of a row.
  DCRNN_DEVICE static A sum_of(const Sums& sums, int half_block, int i) { return sums[half_block / 2][i / 2][half_block % 2 * 2 + i % 2]; }
};

template <typename Tile, int parts>
DCRNN_DEVICE void clear(typename Tile::Sums (&sums)[parts]) {
#pragma unroll
  for (int part = 0; part < parts; ++part)
#pragma unroll
    for (int i = 0; i < Tile::blocks_m * Tile::blocks_n * 4; ++i) sums[part][i / 4 / Tile::blocks_n][i / 4 % Tile::blocks_n][i % 4] = 0;
}

// Loads the left fragments of a slice of 32 bytes.
template <typename M, typename Tile>
DCRNN_DEVICE void load_left(uint32_t (&left)[Tile::blocks_m][4], const unsigned char* tile, int slice) {
#pragma unroll
  for (int m = 0; m < Tile::blocks_m; ++m) {
    load_matrices(left[m], tile + place(Tile::first_row() + m * 16 + Tile::lane() % 16, 2 * slice + Tile::lane() / 16));
    if constexpr (M::tf32)
#pragma unroll
      for (int i = 0; i < 4; ++i) left[m][i] = round_to_tf32(left[m][i]);
  }
}

template <typename M, typename Tile>
DCRNN_DEVICE void multiply_pair(typename Tile::Sums& sums, const uint32_t (&left)[Tile::blocks_m][4], uint32_t (&right)[4], int n) {
  if constexpr (M::tf32)
#pragma unroll
    for (int i = 0; i < 4; ++i) right[i] = round_to_tf32(right[i]);
#pragma unroll
  for (int m = 0; m < Tile::blocks_m; ++m) {
    multiply_fragments<typename M::Value>(sums[m][n], left[m], right[0], right[1]);
    multiply_fragments<typename M::Value>(sums[m][n + 1], left[m], right[2], right[3]);
  }
}

// Loads the left values of one chunk for exact products: rows l / 4 and l / 4 + 8 of every block.
template <typename Tile>
DCRNN_DEVICE void load_left_values(typename Tile::Value (&left)[Tile::blocks_m][2][chunk_values<typename Tile::Value>],
                                   const unsigned char* tile, int chunk) {
  using T = typename Tile::Value;
#pragma unroll
  for (int m = 0; m < Tile::blocks_m; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Tile::first_row() + m * 16 + half * 8 + Tile::lane() / 4;
      const auto pack = read_shared<Pack<T, chunk_values<T>>>(tile + place(row, chunk));
#pragma unroll
      for (int i = 0; i < chunk_values<T>; ++i) left[m][half][i] = pack.values[i];
    }
}

// sums[part] += left right^T for each part. The right tile has `columns` rows a part, each with 128 bytes along the product's inner
// dimension, of which the first `slices` slices of 32 bytes count.
template <typename M, typename Tile, int parts>
DCRNN_DEVICE void multiply_by_rows(typename Tile::Sums (&sums)[parts], const unsigned char* left_tile, const unsigned char* right_tile,
                                   int slices = chunks / 2) {
  using T = typename M::Value;
  const int lane = Tile::lane();
  if constexpr (M::tensor_cores) {
#pragma unroll
    for (int slice = 0; slice < chunks / 2; ++slice) {
      if (slice >= slices) break;
      uint32_t left[Tile::blocks_m][4];
      load_left<M, Tile>(left, left_tile, slice);
#pragma unroll
      for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int n = 0; n < Tile::blocks_n; n += 2) {
          uint32_t right[4];
          const int row = part * Tile::columns + Tile::first_column() + n * 8 + lane / 16 * 8 + lane % 8;
          load_matrices(right, right_tile + place(row, 2 * slice + lane / 8 % 2));
          multiply_pair<M, Tile>(sums[part], left, right, n);
        }
    }
  } else {
#pragma unroll 2
    for (int chunk = 0; chunk < 2 * slices; ++chunk) {
      T left[Tile::blocks_m][2][chunk_values<T>];
      load_left_values<Tile>(left, left_tile, chunk);
#pragma unroll
      for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int n = 0; n < Tile::blocks_n; ++n)
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const int row = part * Tile::columns + Tile::first_column() + n * 8 + lane % 4 * 2 + j;
            const auto right = read_shared<Pack<T, chunk_values<T>>>(right_tile + place(row, chunk));
#pragma unroll
            for (int m = 0; m < Tile::blocks_m; ++m)
#pragma unroll
              for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int i = 0; i < chunk_values<T>; ++i) {
                  auto& sum = sums[part][m][n][2 * half + j];
                  sum = fma_of(left[m][half][i], right.values[i], sum);
                }
          }
    }
  }
}

// The same for one part.
template <typename M, typename Tile>
DCRNN_DEVICE void multiply_by_rows(typename Tile::Sums& sums, const unsigned char* left_tile, const unsigned char* right_tile, int slices) {
  multiply_by_rows<M, Tile, 1>(reinterpret_cast<typename Tile::Sums(&)[1]>(sums), left_tile, right_tile, slices);
}

// The place of value (k, column) in a right tile whose rows lie along the columns: panels of 128 bytes of columns, one after another.
template <typename T>
DCRNN_DEVICE int place_across(int k, int column) {
  const int bytes = column * static_cast<int>(sizeof(T)), chunk = bytes % row_bytes / chunk_bytes;
  const int panel = bytes / row_bytes * row_values<T> * row_bytes, at = bytes % chunk_bytes;
  // 32-bit values are read one by one, from four rows and eight columns at a time: this order puts them in 32 different memory banks.
  // Others are read a chunk from each of eight rows; and where a row has four chunks, two rows are written at a time, to different memory
  // banks.
  const int swap = sizeof(T) == 4 ? k % 4 * 2 | k / 4 % 2 : k % 2 * 4 | k / 2 % 4;
  return panel + k * row_bytes + (chunk ^ swap) * chunk_bytes + at;
}

// sums += left right. The right tile's rows are steps along the product's inner dimension.
template <typename M, typename Tile>
DCRNN_DEVICE void multiply_across(typename Tile::Sums& sums, const unsigned char* left_tile, const unsigned char* right_tile) {
  using T = typename M::Value;
  const int lane = Tile::lane();
  if constexpr (M::tensor_cores) {
#pragma unroll
    for (int slice = 0; slice < chunks / 2; ++slice) {
      uint32_t left[Tile::blocks_m][4];
      load_left<M, Tile>(left, left_tile, slice);
#pragma unroll
      for (int n = 0; n < Tile::blocks_n; n += 2) {
        uint32_t right[4];
        const int column = Tile::first_column() + n * 8;
        if constexpr (sizeof(T) == 2) {
          load_matrices_transposed(right, right_tile + place_across<T>(slice * 16 + lane % 16, column + lane / 16 * 8));
        } else {  // there is no transposed load of 32-bit values
#pragma unroll
          for (int i = 0; i < 4; ++i)
            right[i] = read_shared<uint32_t>(right_tile + place_across<T>(slice * 8 + i % 2 * 4 + lane % 4, column + i / 2 * 8 + lane / 4));
        }
        multiply_pair<M, Tile>(sums, left, right, n);
      }
    }
  } else {
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; ++chunk) {
      T left[Tile::blocks_m][2][chunk_values<T>];
      load_left_values<Tile>(left, left_tile, chunk);
#pragma unroll
      for (int i = 0; i < chunk_values<T>; ++i)
#pragma unroll
        for (int n = 0; n < Tile::blocks_n; ++n) {
          const int column = Tile::first_column() + n * 8 + lane % 4 * 2;
          const auto right = read_shared<Pack<T, 2>>(right_tile + place_across<T>(chunk * chunk_values<T> + i, column));
#pragma unroll
          for (int m = 0; m < Tile::blocks_m; ++m)
#pragma unroll
            for (int at = 0; at < 4; ++at) sums[m][n][at] = fma_of(left[m][at / 2][i], right.values[at % 2], sums[m][n][at]);
        }
    }
  }
}

}  // namespace dcrnn_fast::cuda
