// The backward's second phase: products over the rows of a chunk give its part of dW, and the tiles' column sums give its part of db.
#pragma once

#include "cross_rnn_backward_chunk.h"

namespace dcrnn_fast::cpu {

// da|dq of some units of a task over a chunk's rows, at each step that has the weights of one step, as left operands of dW. Where a row of
// the chunk takes pages of memory, the values of a few columns are copied side by side first: each would lie in a page of its own.
template <typename T>
class UnitGradients {
 public:
  UnitGradients(const BackwardChunk<T>& chunk, int64_t task, int64_t weight_step, Units units)
      : c_(chunk),
        task_(task),
        weight_step_(weight_step),
        units_(units),
        width_(units.count() * c_.p.gates),
        panels_((width_ + panel - 1) / panel),
        packs_(!is_low<T> && c_.width * sizeof(T) >= page),
        packed_(packs_ ? c_.p.steps / c_.p.weight_steps * panels_ * panel * c_.rows : 0) {
    for (int64_t step = weight_step; packs_ && step < c_.p.steps; step += c_.p.weight_steps)
      if (has(step)) pack(step);
  }

  // Whether the task's gradient at a step counts: the common one at the first step is the sum over the tasks.
  bool has(int64_t step) const { return task_ == 0 || !common(step); }

  // Calls body with the first of a few columns, and these columns [count, rows], until all were there.
  template <typename Body>
  void each(int64_t step, const Body& body) const {
    if (!packs_) {
      const Rows<const T> from = rows(step);
      return body(0, Matrix<T>{from.data, width_, c_.rows, 1, from.stride});
    }
    for (int64_t i = 0; i < panels_; ++i)
      body(i * panel, Matrix<T>{packed(step) + i * panel * c_.rows, std::min(panel, width_ - i * panel), c_.rows, 1, panel});
  }

 private:
  static constexpr int64_t panel = 48, page = 4096;  // whole blocks of a product; bytes

  bool common(int64_t step) const { return step == 0 && units_.begin < c_.p.common().end; }
  Rows<const T> rows(int64_t step) const {
    return (common(step) ? c_.common(0) : c_.products(task_, step, 0)).at(0, units_.begin * c_.p.gates);
  }
  T* packed(int64_t step) const { return packed_.get() + (step - weight_step_) / c_.p.weight_steps * panels_ * panel * c_.rows; }
  void pack(int64_t step) const {
    const Rows<const T> from = rows(step);
    for (int64_t row = 0; row < c_.rows; ++row)
      for (int64_t i = 0; i < panels_; ++i)
        std::memcpy(static_cast<void*>(packed(step) + (i * c_.rows + row) * panel), from[row] + i * panel,
                    std::min(panel, width_ - i * panel) * sizeof(T));
  }

  const BackwardChunk<T>& c_;
  const int64_t task_, weight_step_;
  const Units units_;
  const int64_t width_, panels_;
  const bool packs_;
  const Buffer<T> packed_;
};

template <typename T>
class BackwardWeights {
 public:
  using A = accumulator<T>;

  explicit BackwardWeights(const BackwardChunk<T>& chunk) : c_(chunk), p_(chunk.p), kernels_(kernels<T>()) {}

  // Adds the chunk's part to all dW.
  void add_weights() const {
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
  static constexpr int64_t few_columns = is_low<T> ? most_size : 64;

  // The dW of a range of units, [banks, W, units, G, K]: each bank is the sum over so many tasks.
  void add_banks(Units units, int64_t banks, int64_t tasks_each, A* out) const {
    if (!units.count()) return;
    const int64_t blocks = banks * p_.weight_steps, work = p_.gates * p_.columns * c_.rows * tasks_each;  // of a unit
    const auto add = [&](int64_t block, Units part) {
      const Rows<A> to{out + (block * units.count() + part.begin - units.begin) * p_.gates * p_.columns, p_.columns};
      for (int64_t task = block / p_.weight_steps * tasks_each, i = 0; i < tasks_each; ++task, ++i)
        add_task({c_, task, block % p_.weight_steps, part}, task, block % p_.weight_steps, part.count() * p_.gates, to,
                 c_.row > 0 || i > 0);
    };
    if constexpr (is_low<T>) {
      const int64_t threads = torch::stable::get_num_threads();
      const auto each = [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) add(block, units);
      };
      // A small product is too little work for the library's threads: small ones run side by side, one a thread.
      if ((blocks % threads == 0 || blocks > 2 * threads) && units.count() * work < 1 << 25)
        parallel_for(0, blocks, 1, each);
      else
        each(0, blocks);
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

  // Adds a task's part of the dW of some units, [width, K], at a step of the weights; writes it where nothing is there yet.
  void add_task(const UnitGradients<T>& gradients, int64_t task, int64_t weight_step, int64_t width, Rows<A> out, bool add) const {
    const Buffer<A> own(add && !is_low<T> ? width * few_columns : 0);
    const auto columns = [&](int64_t first, int64_t count, const auto& operand) {
      const Rows<A> there = out.at(0, first), to = own.get() ? Rows<A>{own.get(), count} : there;
      bool begun = add && !own.get();
      for (int64_t step = weight_step; step < p_.steps && !p_.interruption.came(); step += p_.weight_steps) {
        if (!gradients.has(step)) continue;
        const Rows<const T> rows = operand(step);
        const Matrix<T> right{rows.data, c_.rows, count, rows.stride};
        gradients.each(step, [&](int64_t row, const Matrix<T>& left) { add_product(to.at(row), left, right, begun); });
        begun = true;
      }
      for (int64_t row = 0; row < width; ++row)
        if (!begun && !add)
          std::fill_n(there[row], count, A(0));
        else if (begun && own.get())
          kernels_.add(to[row], there[row], count);
    };
    for (int64_t first = 0; first < p_.context; first += few_columns)
      columns(first, std::min(few_columns, p_.context - first),
              [&](int64_t step) { return Rows<const T>{p_.context_states + (step * p_.batch + c_.row) * p_.context + first, p_.context}; });
    for (int64_t first = 0; first < p_.dim; first += few_columns)
      columns(p_.context + first, std::min(few_columns, p_.dim - first),
              [&](int64_t step) { return (step ? Rows<const T>(c_.states(task, step, 0)) : p_.x0.at(c_.row)).at(0, first); });
  }

  void add_product(Rows<A> to, const Matrix<T>& left, const Matrix<T>& right, bool add) const {
    if constexpr (is_low<T>) {  // never accumulates in its own type
      const Buffer<T> own(left.rows * right.columns);
      gemm<T>({own.get(), right.columns}, left, right);
      for (int64_t r = 0; r < left.rows; ++r)
        (add ? kernels_.widen_add : kernels_.widen)(own.get() + r * right.columns, to[r], right.columns);
    } else {
      gemm<T>(to, left, right, add);
    }
  }

  const BackwardChunk<T>& c_;
  const Recurrence<T>& p_;
  const Kernels<T>& kernels_;
};

}  // namespace dcrnn_fast::cpu
