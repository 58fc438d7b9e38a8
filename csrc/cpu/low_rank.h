// What the forward and the backward of the low-rank cell share: the sizes, the packed weights, and the steps of a tile of
// rows. A tile goes through all steps of all tasks while it is in cache. Letters as in ops.cpp; W = weight_steps is 1 if all steps share
// their weights, else steps. Sums, states and element-wise passes are in A, products multiply operands of type O, and rows are padded to
// whole vectors (low_rank_kernels.h).
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "../cell_arguments.h"
#include "buffer.h"
#include "low_rank_kernels.h"
#include "parallel.h"

namespace dcrnn_fast::cpu {

// Calls body with a value of the type of the operands that the products of tensors of type T have on this CPU.
template <typename T, typename Body>
auto with_operands(const Body& body) {
  if constexpr (is_low<Operands<T>>)
    if (multiplies_bfloat16()) return body(Operands<T>{});
  return body(accumulator<T>{});
}

template <typename T, typename O>
struct LowRankRecurrence {
  using A = accumulator<T>;

  // With `backward`, also packs the weights as the backward's products read them.
  LowRankRecurrence(const LowRankArguments& arguments, bool backward);
  // Without a context, of weights that were packed before. It has no rows: LowRankTile::start takes them.
  LowRankRecurrence(int64_t tasks, int64_t dim, int64_t shared, int64_t gates, int64_t steps, int64_t weight_steps, int64_t rank,
                    bool common);

  int64_t tasks, batch, dim, context, gates, steps, weight_steps, rank;
  int64_t plane, context_plane, rank_plane;  // dim, context and rank, padded
  Rows<const T> x0;
  const T* context_states;
  Banks banks, projection_banks;
  bool common;          // all tasks have one projection: what x0 and the context contribute to z is computed once
  int64_t projections;  // 1 if common, else tasks

  int64_t z_width() const { return gates * rank_plane; }
  int64_t input_plane() const { return context_plane + plane; }
  // So many of the first units take the same first step for all tasks: it is computed once. They are whole vectors, and never all units.
  int64_t alike() const { return common && tasks > 1 ? std::min(banks.shared, dim - 1) / padding * padding : 0; }

  // Right operands, of the task's weights at a step. W and V transposed, [G, r, plane], and their biases [G, plane].
  const O* weight(int64_t task, int64_t step) const { return packed_weights + block(task, step) * gates * grouped<O>(rank) * plane; }
  const A* bias(int64_t task, int64_t step) const { return packed_biases + block(task, step) * gates * plane; }
  // P and Q transposed: [C, z_width] for the context, [D, z_width] for the state.
  const O* context_projection(int64_t task, int64_t step) const {
    return packed_projections + projection_block(task, step) * (grouped<O>(context) + grouped<O>(dim)) * z_width();
  }
  const O* projection(int64_t task, int64_t step) const { return context_projection(task, step) + grouped<O>(context) * z_width(); }
  // For the backward: W and V as they are, each [D, rank_plane], and P and Q, each [r, context_plane + plane].
  const O* weight_rows(int64_t task, int64_t step, int64_t gate) const {
    return weight_rows_.get() + (block(task, step) * gates + gate) * grouped<O>(dim) * rank_plane;
  }
  const O* projection_rows(int64_t task, int64_t step, int64_t gate) const {
    return projection_rows_.get() + (projection_block(task, step) * gates + gate) * grouped<O>(rank) * input_plane();
  }
  // How many values are packed.
  int64_t weight_values() const { return values_of({tasks, weight_steps, gates, grouped<O>(rank), plane}, "the weights"); }
  int64_t bias_values() const { return values_of({tasks, weight_steps, gates, plane}, "the biases"); }
  int64_t projection_values() const {
    return values_of({projections, weight_steps, grouped<O>(context) + grouped<O>(dim), z_width()}, "the projections");
  }

  const O *packed_weights = nullptr, *packed_projections = nullptr;
  const A* packed_biases = nullptr;

  int64_t block(int64_t task, int64_t step) const { return task * weight_steps + step % weight_steps; }
  int64_t projection_block(int64_t task, int64_t step) const { return block(common ? 0 : task, step); }

 private:
  void pack_weights(const T* shared, const T* own, const T* shared_bias, const T* own_bias, bool backward);
  void pack_projections(const T* shared, const T* own, bool backward);

  Buffer<O> weights_, projections_, weight_rows_, projection_rows_;
  Buffer<A> biases_;
};

// Divides the batch into tiles of about equal size: few enough rows that what a row needs in A stays in the second-level cache, and so many
// tiles that 16 threads have work. They depend on the shape alone: the number of threads must not change the forward's bits.
struct LowRankTiles {
  int64_t batch, count;

  // A tile has `whole` rows or a multiple, as far as the batch divides so: what a product takes at once.
  LowRankTiles(int64_t batch, int64_t row_bytes, int64_t whole);
  int64_t begin(int64_t tile) const { return batch * tile / count; }
  int64_t most_rows() const { return (batch + count - 1) / count; }
};

// How many rows a product of operands O takes at once.
template <typename O>
int64_t whole_rows() {
  return is_low<O> && multiplies_tiles() ? 16 : 1;
}

// Rows in A, and the same as left operands of products: other memory only where these are of another type.
template <typename O>
struct BothRows {
  using A = accumulator<O>;
  Rows<const A> wide;
  Rows<const O> low;
};

// Memory for such rows.
template <typename O>
class BothBuffers {
 public:
  using A = accumulator<O>;
  BothBuffers(int64_t rows, int64_t width) : width_(width), wide_(rows * width), low_(is_low<O> ? rows * width : 0) {}

  Rows<A> wide(int64_t row = 0) const { return {wide_.get() + row * width_, width_}; }
  Rows<O> low(int64_t row = 0) const {
    if constexpr (is_low<O>)
      return {low_.get() + row * width_, width_};
    else
      return wide(row);
  }
  BothRows<O> rows(int64_t row = 0) const { return {wide(row), low(row)}; }

 private:
  int64_t width_;
  Buffer<A> wide_;
  Buffer<O> low_;
};

// A tile of rows: its x0, its context, and what these contribute to z.
template <typename T, typename O>
class LowRankTile {
 public:
  using A = accumulator<T>;

  LowRankTile(const LowRankRecurrence<T, O>& recurrence, int64_t rows);

  // Reads rows [row, row + rows), and starts.
  void begin(int64_t row, int64_t rows);
  // Starts with the rows that the caller wrote to x0_to_fill, with zeros after their D values: computes what all tasks have in common.
  void start(int64_t rows);
  Rows<A> x0_to_fill() const { return x0_.wide(); }

  int64_t row() const { return row_; }
  int64_t rows() const { return rows_; }
  BothRows<O> x0() const { return x0_.rows(); }
  // The context's columns at a step; read again where the tile keeps those of one step alone.
  BothRows<O> context(int64_t step);

  // Writes z and y of a step [G, rank_plane] a row, from the state before it.
  void project(int64_t task, int64_t step, Rows<const O> state, Rows<A> to);
  // The state after a step, also as an operand, and a and g [G, plane] a row where `activations` is not null. For the first step of all
  // tasks but the first, these must hold what the task before wrote: the units alike are not computed again.
  void advance(int64_t task, int64_t step, Rows<const O> z, Rows<const A> state, Rows<A> next, Rows<O> low, Rows<A> activations) const;

  // to [rows, width] = or += the product of a tile's rows with columns of a right operand of `of_width` columns.
  void multiply(Rows<const O> left, int64_t inner, const O* right, int64_t of_width, Rows<A> to, int64_t width, bool add) const {
    kernels_.product({rows_, width, grouped<O>(inner), left.data, left.stride, 1, right, of_width, to, add});
  }
  // The rows as operands. Blocks of `count` values lie `plane` elements apart.
  void narrow(Rows<const A> from, Rows<O> to, int64_t blocks, int64_t count, int64_t plane) const;

 private:
  const LowRankRecurrence<T, O>& p_;
  const Kernels<T>& convert_;
  const LowRankKernels<O>& kernels_;
  BothBuffers<O> x0_, context_;
  Buffer<A> common_;
  int64_t row_ = 0, rows_ = 0, context_step_ = -1;
};

// Reads `count` values of each row of a tensor, and appends zeros up to `plane`.
template <typename T>
void widen_rows(const Kernels<T>& convert, int64_t rows, Rows<const T> from, int64_t count, Rows<accumulator<T>> to, int64_t plane) {
  for (int64_t r = 0; r < rows; ++r) {
    convert.widen(from[r], to[r], count);
    std::fill(to[r] + count, to[r] + plane, accumulator<T>(0));
  }
}

// Writes `count` values of each row to a tensor.
template <typename T>
void narrow_rows(const Kernels<T>& convert, int64_t rows, Rows<const accumulator<T>> from, int64_t count, Rows<T> to) {
  for (int64_t r = 0; r < rows; ++r) convert.narrow(from[r], to[r], count);
}

}  // namespace dcrnn_fast::cpu
