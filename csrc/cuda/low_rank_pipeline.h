// What the kernels of the low-rank cell share. A block owns a tile of rows of one task and takes it through all steps. The left operands of
// its products, of few columns or on the chip, stay; the weights stream past, in stages of 128 bytes of the inner dimension, as
// low_rank_pack.h has ordered them. Where the pipeline has no room for `stages` stages, it has two.
#pragma once

#include "pipeline.h"

namespace dcrnn_fast::cuda {

// What both kernels need to know.
template <typename T>
struct LowRankArguments {
  const T *x0, *weights;         // [B, D]; packed [T, W, stages_a_step, stage]
  const accumulator<T>* biases;  // packed [T, W, G, whole tiles of units]
  int64_t batch, stages_a_step;
  int dim, columns, rank, weight_steps;
  int depth;      // of the pipeline
  bool on_chip;   // the left operands have their places there
  bool resident;  // all stages have places there, and are read once
  DCRNN_DEVICE int64_t weight_step(int64_t task, int step) const { return task * weight_steps + (weight_steps > 1 ? step : 0); }
  bool vector, rank_vector;  // rows of the units and the context, and of z, are multiples of 16 bytes and start at multiples of 16 bytes
};

template <typename M, int G, typename Tile_, int stages_>
struct LowRankTile {
  using Tile = Tile_;
  using T = typename M::Value;
  using A = accumulator<T>;
  using Sums = typename Tile::Sums;
  using Operand = Resident<Tile>;
  static constexpr int stages = stages_, threads = Tile::threads, columns = Tile::columns, neighbours = Operand::neighbours;
  static constexpr int left_bytes = Tile::rows * row_bytes, right_bytes = G * columns * row_bytes;
  static constexpr int stage_values = right_bytes / static_cast<int>(sizeof(T)), slice_values = 2 * chunk_values<T>;
  static constexpr int column_blocks = columns / row_values<T>;  // of a tile, as the inner dimension of a product
  static_assert(column_blocks * row_values<T> == columns);

  // A call in blocks of 128 bytes and in tiles of `columns` columns.
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

  // Waits for copies outside of the pipeline, and lets all threads see them.
  DCRNN_DEVICE static void wait_for_operands() {
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
  }

  // Copies one block of a left operand that has no place on the chip. The caller's last barrier was after the last use of `to`.
  DCRNN_DEVICE static void fetch(unsigned char* to, const T* matrix, int64_t first_row, int64_t batch, int64_t stride, int block, int count,
                                 int parts, int part_stride, bool vector) {
    for (int part = 0; part < parts; ++part)
      copy_rows<Tile>(to + part * left_bytes, matrix + part * part_stride, first_row, batch, stride, block * row_values<T>, count, vector);
    wait_for_operands();
  }

  // Writes this thread's columns of z or y, or of their gradients, of one tile of the rank: to `operand` unless it is null, and to `global`
  // [B, G, r] unless it is null.
  DCRNN_DEVICE static void finish_rank(const Sums (&sums)[G], const Sizes& sizes, int tile, unsigned char* operand, T* global,
                                       int64_t first_row, int64_t batch, int rank, bool vector) {
#pragma unroll
    for (int part = 0; part < G; ++part) {
      if (sizes.halved && part > 0) break;
      const int local = Operand::first_column(), half = columns / 2;
      const int gate = sizes.halved ? local / half : part, column = sizes.halved ? local % half : tile * columns + local;
      if (column >= sizes.rank_blocks * row_values<T>) continue;
#pragma unroll
      for (int half_block = 0; half_block < 2 * Tile::blocks_m; ++half_block) {
        const int64_t row = first_row + Operand::row(half_block);
        A values[neighbours];
#pragma unroll
        for (int i = 0; i < neighbours; ++i) values[i] = Tile::sum_of(sums[part], half_block, i);
        unsigned char* const to = operand ? operand + gate * sizes.rank_blocks * left_bytes : nullptr;
        if (to) Operand::write(to, Operand::row(half_block), column, values, rank - column);
        if (global && row < batch) store(global + (row * G + gate) * rank + column, values, rank - column, vector);
      }
    }
  }
};

}  // namespace dcrnn_fast::cuda
