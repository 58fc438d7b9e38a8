// What the forward and the backward of the low-rank cell share: the checked problem with its packed weights, and the steps of a tile of
// rows. A tile goes through all steps of all tasks while it is in cache. Letters as in ops.cpp; W = weight_steps is 1 if all steps share
// their weights, else steps. Everything is computed in A, and rows are padded to whole vectors (low_rank_kernels.h).
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "../arguments.h"
#include "../interrupt.h"
#include "bank.h"
#include "buffer.h"
#include "low_rank_kernels.h"

namespace dcrnn_fast::cpu {

template <typename T>
struct LowRankProblem {
  using A = accumulator<T>;

  // With `backward`, also packs the weights as the backward's products read them.
  LowRankProblem(const Arguments& arguments, bool backward);

  int64_t tasks, batch, dim, context, gates, steps, weight_steps, rank;
  int64_t plane, context_plane, rank_plane;  // dim, context and rank, padded
  Rows<const T> x0;
  const T* context_states;
  BankIndex bank, projection_bank;
  bool common;          // all tasks read the same projection: what x0 and the context contribute to z is computed once
  int64_t projections;  // 1 if common, else tasks
  Interruption interruption;

  int64_t z_width() const { return gates * rank_plane; }
  int64_t input_plane() const { return context_plane + plane; }

  // Of the task's weights at a step: W and V transposed [G, r, plane], and their biases [G, plane].
  const A* weight(int64_t task, int64_t step) const { return weights_.get() + block(task, step) * gates * rank * plane; }
  const A* bias(int64_t task, int64_t step) const { return biases_.get() + block(task, step) * gates * plane; }
  // P and Q transposed [C + D, G, rank_plane].
  const A* projection(int64_t task, int64_t step) const {
    return projections_.get() + projection_block(task, step) * (context + dim) * z_width();
  }
  // For the backward: W and V as they are [G, D, rank_plane], and P and Q [r, G, context_plane + plane].
  const A* weight_rows(int64_t task, int64_t step) const { return weight_rows_.get() + block(task, step) * gates * dim * rank_plane; }
  const A* projection_rows(int64_t task, int64_t step) const {
    return projection_rows_.get() + projection_block(task, step) * rank * gates * input_plane();
  }
  int64_t block(int64_t task, int64_t step) const { return task * weight_steps + step % weight_steps; }
  int64_t projection_block(int64_t task, int64_t step) const { return block(common ? 0 : task, step); }

 private:
  void pack_weights(const T* shared, const T* own, const T* shared_bias, const T* own_bias, bool backward);
  void pack_projections(const T* shared, const T* own, bool backward);

  Buffer<A> weights_, biases_, projections_, weight_rows_, projection_rows_;
};

// Divides the batch into tiles of about equal size: few enough rows that what a row needs in A stays in the second-level cache, and so many
// tiles that all threads have work. No bit of a result depends on the tiles.
struct LowRankTiles {
  int64_t batch, count;

  LowRankTiles(int64_t batch, int64_t row_bytes);
  int64_t begin(int64_t tile) const { return batch * tile / count; }
  int64_t most_rows() const { return (batch + count - 1) / count; }
};

// A tile of rows in A: its x0, its context, and what these contribute to z.
template <typename T>
class LowRankTile {
 public:
  using A = accumulator<T>;

  LowRankTile(const LowRankProblem<T>& problem, int64_t rows);

  // Reads rows [row, row + rows), and computes what all tasks have in common.
  void begin(int64_t row, int64_t rows);

  int64_t row() const { return row_; }
  int64_t rows() const { return rows_; }
  Rows<const A> x0() const { return {x0_.get(), p_.plane}; }
  // The context's columns at a step; read again where the tile keeps those of one step alone.
  Rows<const A> context(int64_t step);

  // z and y of a step [G, rank_plane] a row, from the state before it. Returns where they lie: in `to`, or where they were computed once.
  Rows<const A> project(int64_t task, int64_t step, Rows<const A> state, Rows<A> to);
  // The state after a step, and a and g [G, plane] a row where `activations` is not null.
  void advance(int64_t task, int64_t step, Rows<const A> z, Rows<const A> state, Rows<A> next, Rows<A> activations) const;

  // to [rows, width] = or += the product of a tile's rows with a matrix.
  void multiply(Rows<const A> left, int64_t inner, Rows<const A> right, Rows<A> to, int64_t width, bool add) const {
    kernels_.product({rows_, width, inner, left.data, left.stride, 1, right, to, add});
  }

 private:
  const LowRankProblem<T>& p_;
  const Kernels<T>& convert_;
  const LowRankKernels<A>& kernels_;
  Buffer<A> x0_, context_, common_;
  int64_t row_ = 0, rows_ = 0, context_step_ = -1;
};

}  // namespace dcrnn_fast::cpu
