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
    const int64_t count = p_.tasks * p_.weight_steps, threads = torch::stable::get_num_threads();
    const auto each = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) add_weight(i / p_.weight_steps, i % p_.weight_steps);
    };
    // A small product is too little work for several threads: small ones run side by side, one a thread.
    constexpr int64_t small = 1 << 25;
    if ((count % threads == 0 || count > 2 * threads) && c_.width * p_.columns * c_.rows < small)
      torch::stable::parallel_for(0, count, 1, each);
    else
      each(0, count);
  }

  // Writes or adds a tile's column sums [tasks, W, G, D] to the gradient of the biases, [tasks, W, D, G].
  void add_biases(const A* sums, bool add) const {
    for (int64_t block = 0; block < p_.tasks * p_.weight_steps; ++block)
      for (int64_t i = 0; i < c_.width; ++i) {
        A& to = c_.out.bias[block * c_.width + i];
        to = sums[block * c_.width + i % p_.gates * p_.dim + i / p_.gates] + (add ? to : A(0));
      }
  }

 private:
  // One task's dW for one step of the weights.
  void add_weight(int64_t task, int64_t weight_step) const {
    A* const out = c_.out.weight + (task * p_.weight_steps + weight_step) * c_.width * p_.columns;
    bool add = c_.row > 0;
    for (int64_t step = weight_step; step < p_.steps && !p_.interruption.came(); step += p_.weight_steps) {
      const auto units = [&](Units range, Rows<const T> gradient) {
        const Rows<A> rows{out + range.begin * p_.gates * p_.columns, p_.columns};
        const int64_t width = range.count() * p_.gates;
        const Rows<const T> state = step ? Rows<const T>(c_.states(task, step, 0)) : p_.x0.at(c_.row);
        if (p_.context)
          add_product(width, gradient, p_.context, {p_.context_states + (step * p_.batch + c_.row) * p_.context, p_.context}, rows, add);
        add_product(width, gradient, p_.dim, state, rows.at(0, p_.context), add);
      };
      const Rows<const T> gradient = c_.products(task, step, 0);
      p_.own_units(step, [&](Units range) { units(range, gradient.at(0, range.begin * p_.gates)); });
      if (step == 0 && c_.common_width) {
        if (task == 0)
          units(p_.common, c_.common(0));
        else if (!add)
          std::fill_n(out + p_.common.begin * p_.gates * p_.columns, c_.common_width * p_.columns, A(0));
      }
      add = true;
    }
  }

  // to [width, columns] = or += gradient [rows, width]^T state [rows, columns].
  void add_product(int64_t width, Rows<const T> gradient, int64_t columns, Rows<const T> state, Rows<A> to, bool add) const {
    // When the library adds a small product to its output, it continues one chain of additions, whose rounding error grows with its length.
    // Small products are therefore computed apart, in blocks of rows. Half precision never accumulates in its own type.
    const bool small = width * columns < 16384, apart = is_low<T> || small;
    const int64_t block = small && !is_low<T> ? 128 : c_.rows;
    const Buffer<T> own(apart ? width * columns : 0);
    for (int64_t row = 0; row < c_.rows; row += block) {
      const int64_t count = std::min(block, c_.rows - row);
      const Matrix<T> left(gradient[row], width, count, 1, gradient.stride), right(state[row], count, columns, state.stride);
      if (apart) {
        gemm(Matrix<T>(own.get(), width, columns, columns), left, right);
        for (int64_t r = 0; r < width; ++r) (add ? kernels_.widen_add : kernels_.widen)(own.get() + r * columns, to[r], columns);
      } else if constexpr (!is_low<T>) {
        gemm(Matrix<T>(to.data, width, columns, to.stride), left, right, add);
      }
      add = true;
    }
  }

  const BackwardChunk<T>& c_;
  const Problem<T>& p_;
  const Kernels<T>& kernels_;
};

}  // namespace dcrnn_fast::cpu
