// How the operands of a product come to the chip: right ones through a pipeline of stages, left ones the same way, or to stay.
#pragma once

#include "multiply.h"

namespace dcrnn_fast::cuda {

// How many stages of a pipeline, of 128 bytes a row, hold so many values.
template <typename T>
constexpr int stages_of(int values) {
  return (values + row_values<T> - 1) / row_values<T>;
}

// Loads `total` stages, from a position on, by kernel.load_stage(position, place) and uses them by use(place), in order. A pipeline has
// `depth` places: `most`, or 2. Each stage is loaded depth - 1 stages before its use.
template <int most, typename Kernel, typename Count, typename Use>
DCRNN_DEVICE void pipelined(const Kernel& kernel, typename Kernel::Position position, Count total, int depth, const Use& use) {
  const auto load = [&](int place) {
    kernel.load_stage(position, place);
    position.advance(kernel);
  };
  for (int place = 0; place < depth - 1; ++place) {
    if (place < total) load(place);
    commit_copies();
  }
  int place = 0;
  for (Count i = 0; i < total; ++i) {
    if (depth == most)
      wait_for_copies<most - 2>();
    else
      wait_for_copies<0>();
    __syncthreads();
    if (i + depth - 1 < total) load(place == 0 ? depth - 1 : place - 1);
    commit_copies();
    use(place);
    place = place == depth - 1 ? 0 : place + 1;
  }
  wait_for_copies<0>();
}

// Copies rows from `first` on of a matrix [batch, columns], from `column` on; what is not there becomes zeros.
template <typename Tile, typename T = typename Tile::Value>
DCRNN_DEVICE void copy_rows(unsigned char* tile, const T* matrix, int64_t first, int64_t batch, int64_t stride, int column, int columns,
                            bool vector) {
  const int chunk = threadIdx.x % chunks, value = column + chunk * chunk_values<T>;
#pragma unroll
  for (int i = 0; i < Tile::rows / Tile::rows_at_once; ++i) {
    const int row = threadIdx.x / chunks + i * Tile::rows_at_once;
    const bool present = first + row < batch;
    copy_chunk(tile + place(row, chunk), present ? matrix + (first + row) * stride + value : matrix, present, columns - value, vector);
  }
}

// The column of the right operand that a column of a tile's product gets, where a warp has `blocks` blocks of 8 columns: so the columns of
// one thread are neighbours.
DCRNN_DEVICE int unit_of_column(int column, int blocks) {
  const int in_warp = column % (8 * blocks), in_block = in_warp % 8;
  return column - in_warp + in_block / 2 * 2 * blocks + in_warp / 8 * 2 + in_block % 2;
}

// A left operand that stays on the chip: a tile of rows, in blocks of 128 bytes a row. Each thread reads and writes its neighbouring
// columns of the product's tile.
template <typename Tile>
struct Resident {
  using T = typename Tile::Value;
  using A = accumulator<T>;
  static constexpr int bytes = Tile::rows * row_bytes, neighbours = 2 * Tile::blocks_n;     // of a block; of a thread
  using Neighbours = Pack < T, neighbours<chunk_values<T> ? neighbours : chunk_values<T>>;  // those that lie in one chunk
  static constexpr int pack_values = sizeof(Neighbours) / sizeof(T);
  static_assert(neighbours % pack_values == 0 && chunk_values<T> % pack_values == 0);

  // Where this thread's columns of a tile start, and its rows.
  DCRNN_DEVICE static int first_column() { return Tile::first_column() + Tile::lane() % 4 * neighbours; }
  DCRNN_DEVICE static int row(int half_block) { return Tile::first_row() + 8 * half_block + Tile::lane() / 4; }

  DCRNN_DEVICE static unsigned char* at(unsigned char* operand, int row, int column) {
    const int in_row = column % row_values<T>;
    unsigned char* const block = operand + column / row_values<T> * bytes;
    return block + place(row, in_row / chunk_values<T>) + in_row % chunk_values<T> * static_cast<int>(sizeof(T));
  }

  DCRNN_DEVICE static void read(A (&values)[neighbours], unsigned char* operand, int row, int column) {
#pragma unroll
    for (int i = 0; i < neighbours; i += pack_values) {
      const auto pack = read_shared<Neighbours>(at(operand, row, column + i));
#pragma unroll
      for (int k = 0; k < pack_values; ++k) values[i + k] = widen(pack.values[k]);
    }
  }

  // Values past `left` are written as zeros: a product multiplies them by zeros, and NaN would stay NaN.
  DCRNN_DEVICE static void write(unsigned char* operand, int row, int column, const A (&values)[neighbours], int left) {
#pragma unroll
    for (int i = 0; i < neighbours; i += pack_values) {
      Neighbours pack;
#pragma unroll
      for (int k = 0; k < pack_values; ++k) round_to(pack.values[k], i + k < left ? values[i + k] : A(0));
      write_shared(at(operand, row, column + i), pack);
    }
  }

  // Copies all `columns` columns of the tile's rows.
  DCRNN_DEVICE static void copy(unsigned char* to, const T* matrix, int64_t first_row, int64_t batch, int64_t stride, int columns,
                                bool vector) {
    for (int block = 0; block < stages_of<T>(columns); ++block)
      copy_rows<Tile>(to + block * bytes, matrix, first_row, batch, stride, block * row_values<T>, columns, vector);
  }
};

}  // namespace dcrnn_fast::cuda
