// The backward's second phase: products over the rows of a chunk give its part of every task's dW, and the tiles' column sums give its part
// of db.
#pragma once

#include "cross_rnn_backward_chunk.h"

namespace dcrnn_fast::cpu {

template <typename T>
class BackwardWeights {
 public:
  using A = accumulator<T>;

  explicit BackwardWeights(const BackwardChunk<T>& chunk) : c_(chunk), p_(chunk.p), kernels_(kernels<T>()) {}

  // Adds the chunk's part to all dW.
  void add_weights() const {
    const int64_t blocks = p_.tasks * p_.weight_steps, work = p_.gates * p_.columns * c_.rows;  // of a unit
    if constexpr (is_low<T>) {
      const int64_t threads = torch::stable::get_num_threads();
      const auto each = [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) add_weight(block, {0, p_.dim});
      };
      // A small product is too little work for the library's threads: small ones run side by side, one a thread.
      if ((blocks % threads == 0 || blocks > 2 * threads) && p_.dim * work < 1 << 25)
        parallel_for(0, blocks, 1, each);
      else
        each(0, blocks);
    } else {
      constexpr int64_t few = 6, repays = 1 << 20;  // units that go together, and the multiplications that repay waking a thread
      const int64_t parts = (p_.dim + few - 1) / few, steps = p_.steps / p_.weight_steps;
      parallel_for(0, blocks * parts, std::max<int64_t>(1, repays / (few * work * steps)), [&](int64_t begin, int64_t end) {
        for (int64_t last; begin < end; begin = last) {
          const int64_t block = begin / parts;
          last = std::min(end, (block + 1) * parts);
          add_weight(block, {(begin - block * parts) * few, std::min(p_.dim, (last - block * parts) * few)});
        }
      });
    }
  }

  // Adds a tile's column sums [tasks, W, G, D] to the gradient of the biases, [tasks, W, D, G].
  void add_biases(const A* sums) const {
    for (int64_t block = 0; block < p_.tasks * p_.weight_steps; ++block)
      for (int64_t i = 0; i < c_.width; ++i)
        c_.out.bias[block * c_.width + i] += double(sums[block * c_.width + i % p_.gates * p_.dim + i / p_.gates]);
  }

 private:
  // The sums of a chunk's rows are computed apart from those of the chunks before it, a few columns at a time so that they stay in cache:
  // the rounding error of one long chain of additions would grow with the batch. The library's sums are apart anyway.
  static constexpr int64_t few_columns = is_low<T> ? most_size : 64;
  bool apart() const { return !is_low<T> && c_.row > 0; }

  // The dW of some units for a task and step of the weights, `block`.
  void add_weight(int64_t block, Units units) const {
    const int64_t task = block / p_.weight_steps, weight_step = block % p_.weight_steps;
    const Rows<A> out{c_.out.weight + (block * p_.dim + units.begin) * p_.gates * p_.columns, p_.columns};
    const Buffer<A> own(apart() ? units.count() * p_.gates * few_columns : 0);
    for (int64_t first = 0; first < p_.context; first += few_columns)
      add_columns(task, weight_step, units, std::min(few_columns, p_.context - first), out.at(0, first), own.get(), [&](int64_t step) {
        return Rows<const T>{p_.context_states + (step * p_.batch + c_.row) * p_.context + first, p_.context};
      });
    for (int64_t first = 0; first < p_.dim; first += few_columns)
      add_columns(task, weight_step, units, std::min(few_columns, p_.dim - first), out.at(0, p_.context + first), own.get(),
                  [&](int64_t step) { return (step ? Rows<const T>(c_.states(task, step, 0)) : p_.x0.at(c_.row)).at(0, first); });
  }

  // `operand` gives the columns' values in the chunk's rows at a step.
  template <typename Operand>
  void add_columns(int64_t task, int64_t weight_step, Units units, int64_t columns, Rows<A> out, A* own, const Operand& operand) const {
    const Rows<A> to = apart() ? Rows<A>{own, columns} : out;
    bool add = is_low<T> && c_.row > 0;
    for (int64_t step = weight_step; step < p_.steps && !p_.interruption.came(); step += p_.weight_steps) {
      // `gradient` is that of the units from `first` on
      const auto multiply = [&](Units range, int64_t first, Rows<const T> gradient) {
        range = range.within(units);
        if (range.count())
          add_product(range.count() * p_.gates, gradient.at(0, (range.begin - first) * p_.gates), columns, operand(step),
                      to.at((range.begin - units.begin) * p_.gates), add);
      };
      p_.own_units(step, [&](Units range) { multiply(range, 0, c_.products(task, step, 0)); });
      if (step == 0 && c_.common_width) {
        const Units common = p_.common.within(units);
        if (task == 0)
          multiply(common, p_.common.begin, c_.common(0));
        else if (!add)
          for (int64_t row = 0; row < common.count() * p_.gates; ++row)
            std::fill_n(to[(common.begin - units.begin) * p_.gates + row], columns, A(0));
      }
      add = true;
    }
    if (apart())
      for (int64_t row = 0; row < units.count() * p_.gates; ++row) kernels_.add(to[row], out[row], columns);
  }

  // to [width, columns] = or += gradient [rows, width]^T state [rows, columns].
  void add_product(int64_t width, Rows<const T> gradient, int64_t columns, Rows<const T> state, Rows<A> to, bool add) const {
    const Matrix<T> left{gradient.data, width, c_.rows, 1, gradient.stride}, right{state.data, c_.rows, columns, state.stride};
    if constexpr (is_low<T>) {  // never accumulates in its own type
      const Buffer<T> own(width * columns);
      gemm<T>({own.get(), columns}, left, right);
      for (int64_t r = 0; r < width; ++r) (add ? kernels_.widen_add : kernels_.widen)(own.get() + r * columns, to[r], columns);
    } else {
      gemm<T>(to, left, right, add);
    }
  }

  const BackwardChunk<T>& c_;
  const Problem<T>& p_;
  const Kernels<T>& kernels_;
};

}  // namespace dcrnn_fast::cpu
