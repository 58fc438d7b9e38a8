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
    const int64_t count = p_.tasks * p_.weight_steps, threads = torch::stable::get_num_threads(), work = c_.width * p_.columns * c_.rows;
    // Half precision leaves the units of one product to the library's threads, unless it is too little work for them: small products run
    // side by side, one a thread.
    const bool side_by_side = !is_low<T> || ((count % threads == 0 || count > 2 * threads) && work < 1 << 25);
    const int64_t parts = is_low<T> ? 1 : std::clamp<int64_t>(work >> 20, 1, (4 * threads + count - 1) / count);
    const auto each = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i / parts, part = i % parts;
        add_weight(block / p_.weight_steps, block % p_.weight_steps, {p_.dim * part / parts, p_.dim * (part + 1) / parts});
      }
    };
    if (side_by_side)
      torch::stable::parallel_for(0, count * parts, 1, each);
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
  // One task's dW for one step of the weights, of some units.
  void add_weight(int64_t task, int64_t weight_step, Units part) const {
    A* const out = c_.out.weight + (task * p_.weight_steps + weight_step) * c_.width * p_.columns;
    bool add = c_.row > 0;
    for (int64_t step = weight_step; step < p_.steps && !p_.interruption.came(); step += p_.weight_steps) {
      // `gradient` is that of the units from `first` on
      const auto units = [&](Units range, int64_t first, Rows<const T> gradient) {
        range = range.within(part);
        if (!range.count()) return;
        gradient = gradient.at(0, (range.begin - first) * p_.gates);
        const Rows<A> rows{out + range.begin * p_.gates * p_.columns, p_.columns};
        const int64_t width = range.count() * p_.gates;
        const Rows<const T> state = step ? Rows<const T>(c_.states(task, step, 0)) : p_.x0.at(c_.row);
        if (p_.context)
          add_product(width, gradient, p_.context, {p_.context_states + (step * p_.batch + c_.row) * p_.context, p_.context}, rows, add);
        add_product(width, gradient, p_.dim, state, rows.at(0, p_.context), add);
      };
      const Rows<const T> gradient = c_.products(task, step, 0);
      p_.own_units(step, [&](Units range) { units(range, 0, gradient); });
      if (step == 0 && c_.common_width) {
        const Units common = p_.common.within(part);
        if (task == 0)
          units(common, p_.common.begin, c_.common(0));
        else if (!add)
          std::fill_n(out + common.begin * p_.gates * p_.columns, common.count() * p_.gates * p_.columns, A(0));
      }
      add = true;
    }
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
