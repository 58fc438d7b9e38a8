// The backward's first phase: a tile of rows goes back through all steps, task by task. It writes da|dq and the states of every step, the
// column sums of da|dq, and the gradients of x0 and the context. The tasks have a fixed order, so that sums over them have the same bits on
// every run.
#pragma once

#include "cross_rnn_backward_chunk.h"

namespace dcrnn_fast::cpu {

template <typename T>
class BackwardWalk {
 public:
  using A = accumulator<T>;

  // Allocates one thread's memory. grad has the shape of the forward's output; activations is null where the forward did not keep them.
  BackwardWalk(const BackwardChunk<T>& chunk, const T* grad, bool return_states, const T* activations)
      : c_(chunk),
        p_(chunk.p),
        kernels_(kernels<T>()),
        grad_(grad),
        return_states_(return_states),
        activations_(activations),
        d_(c_.tile * p_.dim),
        dx0_(c_.tile * p_.dim),
        step_sums_(c_.width),
        block_sums_(c_.width),
        common_sum_(is_low<T> ? c_.tile * c_.common_width : 0),
        state_(is_low<T> ? c_.tile * p_.dim : 0),
        product_(c_.tile * std::max(p_.dim, p_.context)),
        own_activations_(activations ? 0 : p_.steps * c_.tile * c_.width) {
    if (!activations) forward_.emplace(p_, c_.tile);
  }

  // Walks tile `i` of the batch, which is tile `place` of the chunk.
  void run(int64_t i, int64_t place) {
    const int64_t row = c_.tiles.begin(i), dim = p_.dim;
    const Rows<A> d{d_.get(), dim}, dx0{c_.out.x0 ? c_.out.x0 + row * dim : nullptr, dim};
    const Tile tile{row, c_.tiles.begin(i + 1) - row, row - c_.row, p_.x0.at(row), d, dx0, c_.sums(place)};
    std::fill_n(tile.sums, p_.tasks * c_.sums_size, A(0));
    if (c_.out.x0) std::fill_n(tile.dx0.data, tile.count * dim, A(0));
    if (c_.out.context)
      for (int64_t step = 0; step < p_.steps; ++step)
        std::fill_n(c_.out.context + (step * p_.batch + row) * p_.context, tile.count * p_.context, A(0));
    const Rows<A> sum = common_sum(tile);
    if (sum) std::fill_n(sum.data, tile.count * c_.common_width, A(0));
    if (forward_) forward_->begin(row, tile.count);
    for (int64_t task = 0; task < p_.tasks; ++task) walk(tile, task);
    if (!sum) return;
    // the first step of the common units is the same for all tasks: it goes back once, with the sum over the tasks
    if constexpr (is_low<T>) kernels_.narrow(sum.data, c_.common(tile.local).data, tile.count * c_.common_width);
    pull(tile, 0, 0, p_.common(), c_.common(tile.local), tile.dx0);
  }

 private:
  struct Tile {
    int64_t row, count, local;  // row and local: its first row in the batch and in the chunk
    Rows<const T> x0;
    Rows<A> d, dx0;
    A* sums;
  };

  // The gradient of the state after `step` steps, from row `row` on.
  Rows<const T> grad(int64_t task, int64_t step, int64_t row) const {
    const int64_t block = return_states_ ? task * (p_.steps + 1) + step : task;
    return {grad_ + (block * p_.batch + row) * p_.dim, p_.dim};
  }

  Rows<const T> activations(const Tile& tile, int64_t task, int64_t step) const {
    if (!activations_) return {own_activations_.get() + step * c_.tile * c_.width, c_.width};
    return {activations_ + ((task * p_.steps + step) * p_.batch + tile.row) * c_.width, c_.width};
  }

  // da|dq of the common units, summed over tasks. Half precision sums them in float and rounds once at the end.
  Rows<A> common_sum(const Tile& tile) const {
    if constexpr (is_low<T>)
      return {c_.common_width ? common_sum_.get() : nullptr, c_.common_width};
    else
      return c_.common_width ? c_.common(tile.local) : Rows<A>{};
  }

  void walk(const Tile& tile, int64_t task) {
    if (forward_)
      forward_->run(
          task, [](int64_t) { return Rows<T>{}; },
          [&](int64_t step) { return Rows<T>{own_activations_.get() + step * c_.tile * c_.width, c_.width}; });
    if (c_.out.bias) keep_states(tile, task);
    // Each task's share is summed by itself: the rounding error of one long chain of additions would grow with its length.
    const Rows<A> dx0{dx0_.get(), p_.dim};
    std::fill_n(dx0.data, tile.count * p_.dim, A(0));
    for (int64_t step = p_.steps; step-- > 0;) {
      const bool last = step + 1 == p_.steps;
      const Rows<T> product = c_.products(task, step, tile.local);
      const Rows<const A> d = last ? Rows<const A>{} : Rows<const A>(tile.d);
      elementwise({tile.count, p_.dim, activations(tile, task, step), tile.x0,
                   last || return_states_ ? grad(task, step + 1, tile.row) : Rows<const T>{}, d, tile.d, dx0, product, block_sums_.get()},
                  step_sums_.get());
      kernels_.add(step_sums_.get(), tile.sums + task * c_.sums_size + step % p_.weight_steps * c_.width, c_.width);
      p_.own_units(step, [&](Units units) { pull(tile, task, step, units, product.at(0, units.begin * p_.gates), tile.d); });
      if (step > 0 || !c_.common_width) continue;
      const Rows<A> sum = common_sum(tile);
      for (int64_t r = 0; r < tile.count; ++r) kernels_.widen_add(product[r], sum[r], c_.common_width);
    }
    if (!c_.out.x0) return;
    for (int64_t r = 0; r < tile.count; ++r) {
      kernels_.add(dx0[r], tile.d[r], p_.dim);
      kernels_.add(tile.d[r], tile.dx0[r], p_.dim);
      if (return_states_) kernels_.widen_add(grad(task, 0, tile.row)[r], tile.dx0[r], p_.dim);
    }
  }

  // Works on blocks of rows, so that column sums are sums of block sums: the rounding error then grows with the block, not with the tile.
  void elementwise(const BackwardStep<T>& pass, A* sums) const {
    constexpr int64_t block = 16;
    std::fill(sums, sums + c_.width, A(0));
    for (int64_t row = 0; row < pass.rows; row += block) {
      BackwardStep<T> part = pass;
      part.rows = std::min(block, pass.rows - row);
      part.activations = pass.activations.at(row), part.x0 = pass.x0.at(row), part.d_out = pass.d_out.at(row), part.dx0 = pass.dx0.at(row);
      part.products = pass.products.at(row);
      if (pass.added) part.added = pass.added.at(row);
      if (pass.d) part.d = pass.d.at(row);
      std::fill(part.sums, part.sums + c_.width, A(0));
      (p_.gates == 2 ? kernels_.backward_gated : kernels_.backward_cross)(part);
      kernels_.add(part.sums, sums, c_.width);
    }
  }

  // Computes every state again from the activations. This element-wise pass costs less than keeping the states from the forward.
  void keep_states(const Tile& tile, int64_t task) const {
    const Rows<A> wide{state_.get(), p_.dim};
    if constexpr (is_low<T>)
      for (int64_t r = 0; r < tile.count; ++r) kernels_.widen(tile.x0[r], wide[r], p_.dim);
    for (int64_t step = 0; step + 1 < p_.steps; ++step) {
      const Rows<T> to = c_.states(task, step + 1, tile.local);
      StateStep<T> pass{tile.count, p_.dim, activations(tile, task, step), tile.x0, {}, {}, {}};
      if constexpr (is_low<T>)
        pass.state = wide, pass.next = wide, pass.low = to;
      else
        pass.state = step ? Rows<const T>(c_.states(task, step, tile.local)) : tile.x0, pass.next = to;
      (p_.gates == 2 ? kernels_.states_gated : kernels_.states_cross)(pass);
    }
  }

  // Adds da|dq of the units times the state's columns of their weights to `to`, and times the context's columns to the context's gradient.
  void pull(const Tile& tile, int64_t task, int64_t step, Units units, Rows<const T> gradient, Rows<A> to) const {
    const int64_t width = units.count() * p_.gates;
    const T* const weight = p_.weight(task, step, units);
    const auto add = [&](int64_t offset, int64_t columns, A* out) {
      const Matrix<T> left{gradient.data, tile.count, width, gradient.stride}, right{weight + offset, width, columns, p_.columns};
      // summed by itself: added to `out` term by term, small terms would be rounded as often as there are units
      gemm<T>({product_.get(), columns}, left, right, false, p_.by_library());
      kernels_.widen_add(product_.get(), out, tile.count * columns);
    };
    if (c_.out.context) add(0, p_.context, c_.out.context + (step * p_.batch + tile.row) * p_.context);
    if (step > 0 || c_.out.x0) add(p_.context, p_.dim, to.data);
  }

  const BackwardChunk<T>& c_;
  const Recurrence<T>& p_;
  const Kernels<T>& kernels_;
  const T* const grad_;
  const bool return_states_;
  const T* const activations_;
  Buffer<A> d_, dx0_, step_sums_, block_sums_, common_sum_, state_;
  Buffer<T> product_, own_activations_;
  std::optional<ForwardTile<T>> forward_;
};

}  // namespace dcrnn_fast::cpu
