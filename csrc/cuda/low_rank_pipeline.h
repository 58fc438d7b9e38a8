// What the kernels of the low-rank cell share. A block owns a tile of rows of one task and takes it through all steps. The left operands of
// its products, of few columns or on the chip, stay; the weights stream past, in stages of 128 bytes of the inner dimension, as
// low_rank_pack_kernels.h has ordered them. Where the pipeline has no room for `stages` stages, it has two.
#pragma once

#include "cross_rnn_forward_kernels.h"

namespace dcrnn_fast::cuda {

template <typename M, int G, typename Tile_, int stages_>
struct LowRankTile {
  using Tile = Tile_;
  using T = typename M::Value;
  using A = accumulator<T>;
  using Sums = typename Tile::Sums;
  using Multiplication = M;
  static constexpr int vectors = G;
  static constexpr int stages = stages_, threads = Tile::threads, columns = Tile::columns, neighbours = 2 * Tile::blocks_n;
  static constexpr int left_bytes = Tile::rows * row_bytes, right_bytes = G * columns * row_bytes;
  static constexpr int stage_values = right_bytes / static_cast<int>(sizeof(T)), slice_values = 2 * chunk_values<T>;
  static constexpr int column_blocks = columns / row_values<T>;  // of a tile, as the inner dimension of a product
  static_assert(column_blocks * row_values<T> == columns);

  // A problem in blocks of 128 bytes and in tiles of `columns` columns.
  struct Sizes {
    int context_blocks, state_blocks, rank_blocks, context_tiles, unit_tiles, rank_tiles;
    bool halved;  // both vectors of r columns fit into one tile, side by side

    constexpr Sizes(int dim, int context_columns, int rank)
        : context_blocks(stages_of<T>(context_columns)),
          state_blocks(stages_of<T>(dim)),
          rank_blocks(stages_of<T>(rank)),
          context_tiles(tiles(context_columns)),
          unit_tiles(tiles(dim)),
          rank_tiles(tiles(rank)),
          halved(G == 2 && rank <= columns / 2) {}

    static constexpr int tiles(int count) { return (count + columns - 1) / columns; }

    // Stages of a step: the projections of u, the units' products, and in the backward the gradients of z and y and those of u.
    constexpr int64_t project() const { return int64_t(rank_tiles) * (context_blocks + state_blocks); }
    constexpr int64_t units() const { return int64_t(unit_tiles) * rank_blocks; }
    constexpr int64_t ranks() const { return int64_t(rank_tiles) * unit_tiles * column_blocks; }
    constexpr int64_t inputs() const { return int64_t(context_tiles + unit_tiles) * rank_blocks; }
  };

  // Where this thread's columns of a tile start, and its rows.
  DCRNN_DEVICE static int first_column() { return Tile::first_column() + Tile::lane() % 4 * neighbours; }
  DCRNN_DEVICE static int local_row(int half_block) { return Tile::first_row() + 8 * half_block + Tile::lane() / 4; }

  // Waits for the stage that is multiplied next, of a pipeline of 2 or of `stages` stages.
  DCRNN_DEVICE static void wait_for_stage(int depth) {
    if (depth == 2)
      wait_for_copies<0>();
    else
      wait_for_copies<stages - 2>();
  }

  // How many slices of the block that starts at `first` hold some of `count` values.
  DCRNN_DEVICE static int slices_from(int first, int count) {
    const int slices = (count - first + slice_values - 1) / slice_values;
    return slices < 0 ? 0 : slices < chunks / 2 ? slices : chunks / 2;
  }

  // Copies a stage of weights: one tile of both vectors side by side, or one of each.
  DCRNN_DEVICE static void copy_weights(unsigned char* to, const T* from, int parts) {
    const int chunk = threadIdx.x % chunks;
#pragma unroll
    for (int i = 0; i < G * columns / Tile::rows_at_once; ++i) {
      const int row = threadIdx.x / chunks + i * Tile::rows_at_once;
      if (row < parts * columns) copy_async(to + place(row, chunk), from + row * row_values<T> + chunk * chunk_values<T>, true);
    }
  }

  // Neighbouring columns of a left operand that lie in one chunk.
  using Neighbours = Pack < T, neighbours<chunk_values<T> ? neighbours : chunk_values<T>>;
  static constexpr int pack_values = sizeof(Neighbours) / sizeof(T);
  static_assert(neighbours % pack_values == 0 && chunk_values<T> % pack_values == 0);

  DCRNN_DEVICE static unsigned char* pack_at(unsigned char* operand, int row, int column) {
    const int at = column % row_values<T>;
    unsigned char* const block = operand + column / row_values<T> * left_bytes;
    return block + place(row, at / chunk_values<T>) + at % chunk_values<T> * static_cast<int>(sizeof(T));
  }

  // Values past `left` are written as zeros: a product multiplies them by zeros, and NaN would stay NaN.
  DCRNN_DEVICE static void write(unsigned char* operand, int row, int column, const A (&values)[neighbours], int left) {
#pragma unroll
    for (int i = 0; i < neighbours; i += pack_values) {
      Neighbours pack;
#pragma unroll
      for (int k = 0; k < pack_values; ++k) round_to(pack.values[k], i + k < left ? values[i + k] : A(0));
      write_shared(pack_at(operand, row, column + i), pack);
    }
  }

  DCRNN_DEVICE static void read(A (&values)[neighbours], unsigned char* operand, int row, int column) {
#pragma unroll
    for (int i = 0; i < neighbours; i += pack_values) {
      const auto pack = read_shared<Neighbours>(pack_at(operand, row, column + i));
#pragma unroll
      for (int k = 0; k < pack_values; ++k) values[i + k] = widen(pack.values[k]);
    }
  }

  // Copies all `count` columns of the tile's rows to a left operand.
  DCRNN_DEVICE static void copy_operand(unsigned char* to, const T* matrix, int64_t first_row, int64_t batch, int64_t stride, int count,
                                        bool vector) {
    for (int block = 0; block < stages_of<T>(count); ++block)
      copy_rows<Tile>(to + block * left_bytes, matrix, first_row, batch, stride, block * row_values<T>, count, vector);
  }

  // Copies one block of a left operand that has no place on the chip, and waits for it. The caller's last barrier was after the last use of
  // `to`.
  DCRNN_DEVICE static void fetch(unsigned char* to, const T* matrix, int64_t first_row, int64_t batch, int64_t stride, int block, int count,
                                 int parts, int part_stride, bool vector) {
    for (int part = 0; part < parts; ++part)
      copy_rows<Tile>(to + part * left_bytes, matrix + part * part_stride, first_row, batch, stride, block * row_values<T>, count, vector);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
  }

  // Writes this thread's columns of z or y, or of their gradients, of one tile of the rank: to `operand` unless it is null, and to `global`
  // [B, G, r] unless it is null.
  DCRNN_DEVICE static void finish_rank(const Sums (&sums)[G], const Sizes& sizes, int tile, unsigned char* operand, T* global,
                                       int64_t first_row, int64_t batch, int rank, bool vector) {
#pragma unroll
    for (int part = 0; part < G; ++part) {
      if (sizes.halved && part > 0) break;
      const int local = first_column(), half = columns / 2;
      const int gate = sizes.halved ? local / half : part, column = sizes.halved ? local % half : tile * columns + local;
      if (column >= sizes.rank_blocks * row_values<T>) continue;
#pragma unroll
      for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
        const int local_row = LowRankTile::local_row(half_block);
        const int64_t row = first_row + local_row;
        A values[neighbours];
#pragma unroll
        for (int i = 0; i < neighbours; ++i) values[i] = Tile::sum_of(sums[part], half_block, i);
        if (operand) write(operand + gate * sizes.rank_blocks * left_bytes, local_row, column, values, rank - column);
        if (global && row < batch) store(global + (row * G + gate) * rank + column, values, rank - column, vector);
      }
    }
  }
};

}  // namespace dcrnn_fast::cuda
