// The backward's second phase: products over the rows of a chunk give its part of dW, and the tiles' column sums give its part of db.
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
    if constexpr (is_low<T>) return add_banks({0, p_.dim}, p_.tasks, 1, c_.out.weight);
    add_banks(p_.shared_units(), 1, p_.tasks, c_.out.shared_weight);
    add_banks(p_.private_units(), p_.tasks, 1, c_.out.private_weight);
  }

  // Adds a tile's column sums [tasks, W, G, D] to the gradient of the biases, [tasks, W, D, G].
  void add_biases(const A* sums) const {
    for (int64_t block = 0; block < p_.tasks * p_.weight_steps; ++block)
      for (int64_t i = 0; i < c_.width; ++i)
        c_.out.bias[block * c_.width + i] += double(sums[block * c_.width + i % p_.gates * p_.dim + i / p_.gates]);
  }

 private:
  // The sums of a chunk's rows and of a task are computed apart from those before them, a few columns at a time so that they stay in cache:
  // the rounding error of one long chain of additions would grow with the batch. The library's sums are apart anyway.
  int64_t few_columns() const { return p_.by_library() ? most_size : 64; }

  // The dW of a range of units, [banks, W, units, G, K]: each bank is the sum over so many tasks.
  void add_banks(Units units, int64_t banks, int64_t tasks_each, A* out) const {
    if (!units.count()) return;
    const int64_t blocks = banks * p_.weight_steps, work = p_.gates * p_.columns * c_.rows * tasks_each;  // of a unit
    const auto add = [&](int64_t block, Units part) {
      const Rows<A> to{out + (block * units.count() + part.begin - units.begin) * p_.gates * p_.columns, p_.columns};
      for (int64_t task = block / p_.weight_steps * tasks_each, i = 0; i < tasks_each; ++task, ++i)
        add_task(task, block % p_.weight_steps, part, to, c_.row > 0 || i > 0);
    };
    if constexpr (is_low<T>) {
      const int64_t threads = torch::stable::get_num_threads();
      // A small product is too little work for the library's threads: small ones run side by side, one a thread.
      if ((blocks % threads == 0 || blocks > 2 * threads) && units.count() * work < 1 << 25)
        parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
          for (int64_t block = begin; block < end; ++block) add(block, units);
        });
      else
        for (int64_t block = 0; block < blocks; ++block) add(block, units);
    } else {
      constexpr int64_t few = 6, repays = 1 << 20;  // units that go together, and the multiplications that repay waking a thread
      const int64_t parts = (units.count() + few - 1) / few, steps = p_.steps / p_.weight_steps;
      parallel_for(0, blocks * parts, std::max<int64_t>(1, repays / (few * work * steps)), [&](int64_t begin, int64_t end) {
        for (int64_t last; begin < end; begin = last) {
          const int64_t block = begin / parts;
          last = std::min(end, (block + 1) * parts);
          add(block, {units.begin + (begin - block * parts) * few, std::min(units.end, units.begin + (last - block * parts) * few)});
        }
      });
    }
  }

  // Adds a task's part of the dW of some units at a step of the weights; writes it where nothing is there yet.
  void add_task(int64_t task, int64_t weight_step, Units units, Rows<A> out, bool add) const {
    const Buffer<A> own(add && !p_.by_library() ? units.count() * p_.gates * few_columns() : 0);
    for (int64_t first = 0; first < p_.context; first += few_columns())
      add_columns(
          task, weight_step, units, std::min(few_columns(), p_.context - first), out.at(0, first), add, own.get(),
          [&](int64_t step) { return Rows<const T>{p_.context_states + (step * p_.batch + c_.row) * p_.context + first, p_.context}; });
    for (int64_t first = 0; first < p_.dim; first += few_columns())
      add_columns(task, weight_step, units, std::min(few_columns(), p_.dim - first), out.at(0, p_.context + first), add, own.get(),
                  [&](int64_t step) { return (step ? Rows<const T>(c_.states(task, step, 0)) : p_.x0.at(c_.row)).at(0, first); });
  }

  // `operand` gives the columns' values in the chunk's rows at a step.
  template <typename Operand>
  void add_columns(int64_t task, int64_t weight_step, Units units, int64_t columns, Rows<A> out, bool add, A* own,
                   const Operand& operand) const {
    const int64_t width = units.count() * p_.gates, first = units.begin * p_.gates;
    const Rows<A> to = own ? Rows<A>{own, columns} : out;
    bool begun = add && !own;
    for (int64_t step = weight_step; step < p_.steps; step += p_.weight_steps) {
      const bool common = !is_low<T> && step == 0 && units.begin < p_.common().end;  // whose gradient is the sum over the tasks
      if (common && task > 0) continue;
      const Rows<const T> gradient = (common ? c_.common(0) : c_.products(task, step, 0)).at(0, first);
      add_product(width, gradient, columns, operand(step), to, begun);
      begun = true;
    }
    if (!begun && !add)
      for (int64_t row = 0; row < width; ++row) std::fill_n(out[row], columns, A(0));
    if (begun && own)
      for (int64_t row = 0; row < width; ++row) kernels_.add(own + row * columns, out[row], columns);
  }

  // to [width, columns] = or += gradient [rows, width]^T state [rows, columns].
  void add_product(int64_t width, Rows<const T> gradient, int64_t columns, Rows<const T> state, Rows<A> to, bool add) const {
    const Matrix<T> left{gradient.data, width, c_.rows, 1, gradient.stride}, right{state.data, c_.rows, columns, state.stride};
    if constexpr (is_low<T>) {  // never accumulates in its own type
      const Buffer<T> own(width * columns);
      gemm<T>({own.get(), columns}, left, right);
      for (int64_t r = 0; r < width; ++r) (add ? kernels_.widen_add : kernels_.widen)(own.get() + r * columns, to[r], columns);
    } else {
      gemm<T>(to, left, right, add, p_.by_library());
    }
  }

  const BackwardChunk<T>& c_;
  const Recurrence<T>& p_;
  const Kernels<T>& kernels_;
};

}  // namespace dcrnn_fast::cpu
