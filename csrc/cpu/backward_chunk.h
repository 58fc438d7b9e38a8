// The backward of a chunk of rows for all tasks, in two phases. Tiles of the chunk walk back through the steps, task after task, side by side
// on the threads, and leave da|dq and the states of every step. Then products over them give the chunk's part of every task's dW. The chunk
// bounds the scratch memory; tasks in order make the sums over tasks the same on every run.
#pragma once

#include "cross_rnn.h"

namespace dcrnn_fast::cpu {

// Where gradients go; null where one is not wanted.
template <typename A>
struct Gradients {
  A* x0;       // [B, D], written
  A* context;  // [steps, B, C], written
  A* weight;   // [T, W * D * G, K], written
  A* bias;     // [T, W * D * G], written
};

template <typename T>
class BackwardChunk {
 public:
  using A = accumulator<T>;

  // grad as the forward's output; gates null where the forward did not keep them.
  BackwardChunk(const Problem<T>& problem, const T* grad, bool return_states, const T* gates, const Gradients<A>& out)
      : p_(problem),
        kernels_(kernels<T>()),
        grad_(grad),
        return_states_(return_states),
        gates_(gates),
        out_(out),
        width_(p_.dim * p_.gates),
        common_width_(p_.common.count() * p_.gates),
        sums_size_(p_.weight_steps * width_),
        tiles_(p_, sizeof(T), torch::stable::get_num_threads()),
        tile_(tiles_.most_rows()),
        tiles_each_(tiles_in_chunk()),
        rows_each_(tiles_each_ * tile_),
        products_(p_.tasks * p_.steps * rows_each_ * width_),
        states_(out.weight ? p_.tasks * (p_.steps - 1) * rows_each_ * p_.dim : 0),
        common_(rows_each_ * common_width_) {
    for (int64_t i = 0; i < tiles_each_; ++i) slots_.emplace_back(*this);
  }

  void run() {
    for (int64_t first = 0; first < tiles_.count; first += tiles_each_) {
      const int64_t last = std::min(first + tiles_each_, tiles_.count);
      row_ = tiles_.begin(first), rows_ = tiles_.begin(last) - row_;
      torch::stable::parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) walk(slots_[i - first], i);
      });
      if (!out_.weight) continue;
      add_weights();
      for (int64_t i = first; i < last; ++i) add_biases(slots_[i - first].sums.get(), i > 0);
    }
  }

 private:
  // One tile's memory.
  struct Slot {
    Buffer<A> d, dx0, sums, step_sums, block_sums, common, state;
    Buffer<T> low, gates;
    std::optional<ForwardTile<T>> forward;

    explicit Slot(const BackwardChunk& b)
        : d(b.tile_ * b.p_.dim),
          dx0(b.out_.x0 ? 0 : b.tile_ * b.p_.dim),
          sums(b.p_.tasks * b.sums_size_),
          step_sums(b.width_),
          block_sums(b.width_),
          common(is_low<T> ? b.tile_ * b.common_width_ : 0),
          state(is_low<T> ? b.tile_ * b.p_.dim : 0),
          low(is_low<T> ? b.tile_ * std::max(b.p_.dim, b.p_.context) : 0),
          gates(b.gates_ ? 0 : b.p_.steps * b.tile_ * b.width_) {
      if (!b.gates_) forward.emplace(b.p_, b.tile_);
      if (dx0.get()) std::fill_n(dx0.get(), b.tile_ * b.p_.dim, A(0));
    }
  };

  // A tile on its way back.
  struct Tile {
    Slot& slot;
    int64_t row, count, local;  // its first row in the batch and in the chunk
    Rows<const T> x0;
    Rows<A> d, dx0;
  };

  // Enough tiles for all threads, and enough rows for the products of dW; an even share of the tiles for every chunk.
  int64_t tiles_in_chunk() const {
    constexpr int64_t rows = 1024;
    const int64_t threads = torch::stable::get_num_threads(), wanted = std::max(threads, (rows + tile_ - 1) / tile_);
    const int64_t each = (wanted + threads - 1) / threads * threads;
    return std::min(tiles_.count, each);
  }

  Rows<T> products(int64_t task, int64_t step, int64_t local) const {
    return {products_.get() + ((task * p_.steps + step) * rows_each_ + local) * width_, width_};
  }
  // The state before `step` >= 1.
  Rows<T> states(int64_t task, int64_t step, int64_t local) const {
    return {states_.get() + ((task * (p_.steps - 1) + step - 1) * rows_each_ + local) * p_.dim, p_.dim};
  }
  Rows<T> common(int64_t local) const { return {common_.get() + local * common_width_, common_width_}; }

  // The gradient of the state after `step` steps, from row `row` on.
  Rows<const T> grad(int64_t task, int64_t step, int64_t row) const {
    const int64_t block = return_states_ ? task * (p_.steps + 1) + step : task;
    return {grad_ + (block * p_.batch + row) * p_.dim, p_.dim};
  }

  Rows<const T> gates(const Tile& tile, int64_t task, int64_t step) const {
    if (!gates_) return {tile.slot.gates.get() + step * tile_ * width_, width_};
    return {gates_ + ((task * p_.steps + step) * p_.batch + tile.row) * width_, width_};
  }

  void walk(Slot& slot, int64_t i) const {
    const int64_t row = tiles_.begin(i), dim = p_.dim;
    const Tile tile{slot, row, tiles_.begin(i + 1) - row, row - row_, p_.x0.at(row), {slot.d.get(), dim},
                    {out_.x0 ? out_.x0 + row * dim : slot.dx0.get(), dim}};
    std::fill_n(slot.sums.get(), p_.tasks * sums_size_, A(0));
    if (out_.x0) std::fill_n(tile.dx0.data, tile.count * dim, A(0));
    if (out_.context)
      for (int64_t step = 0; step < p_.steps; ++step)
        std::fill_n(out_.context + (step * p_.batch + row) * p_.context, tile.count * p_.context, A(0));
    const Rows<A> sum = common_sum(tile);
    if (sum) std::fill_n(sum.data, tile.count * common_width_, A(0));
    if (slot.forward) slot.forward->begin(row, tile.count);
    for (int64_t task = 0; task < p_.tasks; ++task) walk_task(tile, task);
    if (!sum) return;
    // what the tasks share at the first step goes back once, as the sum over them
    if constexpr (is_low<T>) kernels_.narrow(sum.data, common(tile.local).data, tile.count * common_width_);
    pull(tile, 0, 0, p_.common, common(tile.local), tile.dx0);
  }

  // da|dq of the common units, summed over tasks: in float for the low types, which are rounded once at the end.
  Rows<A> common_sum(const Tile& tile) const {
    if constexpr (is_low<T>)
      return {common_width_ ? tile.slot.common.get() : nullptr, common_width_};
    else
      return common_width_ ? common(tile.local) : Rows<A>{};
  }

  void walk_task(const Tile& tile, int64_t task) const {
    Slot& slot = tile.slot;
    if (slot.forward)
      slot.forward->run(task, [](int64_t) { return Rows<T>{}; },
                        [&](int64_t step) { return Rows<T>{slot.gates.get() + step * tile_ * width_, width_}; });
    if (out_.weight) keep_states(tile, task);
    for (int64_t step = p_.steps; step-- > 0;) {
      const bool last = step + 1 == p_.steps;
      const Rows<T> product = products(task, step, tile.local);
      const Rows<const A> d = last ? Rows<const A>{} : Rows<const A>(tile.d);
      elementwise({tile.count, p_.dim, p_.dim, gates(tile, task, step), tile.x0, last || return_states_ ? grad(task, step + 1, tile.row) : Rows<const T>{}, d,
                   tile.d, tile.dx0, product, slot.block_sums.get()},
                  slot.step_sums.get());
      kernels_.add(slot.step_sums.get(), slot.sums.get() + task * sums_size_ + step % p_.weight_steps * width_, width_);
      if (step > 0 || !common_width_) {
        pull(tile, task, step, {0, p_.dim}, product, tile.d);
        continue;
      }
      for (const Units units : {Units{0, p_.common.begin}, Units{p_.common.end, p_.dim}})
        if (units.count()) pull(tile, task, 0, units, product.at(0, units.begin * p_.gates), tile.d);
      const Rows<A> sum = common_sum(tile);
      for (int64_t r = 0; r < tile.count; ++r) kernels_.widen_add(product.at(r, p_.common.begin * p_.gates).data, sum[r], common_width_);
    }
    if (!out_.x0) return;
    for (int64_t r = 0; r < tile.count; ++r) {
      kernels_.add(tile.d[r], tile.dx0[r], p_.dim);
      if (return_states_) kernels_.widen_add(grad(task, 0, tile.row)[r], tile.dx0[r], p_.dim);
    }
  }

  // A block of rows at a time, so that the column sums are sums of sums: their rounding error grows with the block, not with the tile.
  void elementwise(const BackwardStep<T>& pass, A* sums) const {
    constexpr int64_t block = 16;
    std::fill(sums, sums + width_, A(0));
    for (int64_t row = 0; row < pass.rows; row += block) {
      BackwardStep<T> part = pass;
      part.rows = std::min(block, pass.rows - row);
      part.gates = pass.gates.at(row), part.x0 = pass.x0.at(row), part.d_out = pass.d_out.at(row), part.dx0 = pass.dx0.at(row);
      part.products = pass.products.at(row);
      if (pass.added) part.added = pass.added.at(row);
      if (pass.d) part.d = pass.d.at(row);
      std::fill(part.sums, part.sums + width_, A(0));
      (p_.gates == 2 ? kernels_.backward_gated : kernels_.backward_cross)(part);
      kernels_.add(part.sums, sums, width_);
    }
  }

  // Every step's state, computed from the gates again: an element-wise pass costs less than keeping the states from the forward.
  void keep_states(const Tile& tile, int64_t task) const {
    const Rows<A> wide{tile.slot.state.get(), p_.dim};
    if constexpr (is_low<T>)
      for (int64_t r = 0; r < tile.count; ++r) kernels_.widen(tile.x0[r], wide[r], p_.dim);
    for (int64_t step = 0; step + 1 < p_.steps; ++step) {
      const Rows<T> to = states(task, step + 1, tile.local);
      StateStep<T> pass{tile.count, p_.dim, p_.dim, gates(tile, task, step), tile.x0, {}, {}, {}};
      if constexpr (is_low<T>)
        pass.state = wide, pass.next = wide, pass.low = to;
      else
        pass.state = step ? Rows<const T>(states(task, step, tile.local)) : tile.x0, pass.next = to;
      (p_.gates == 2 ? kernels_.states_gated : kernels_.states_cross)(pass);
    }
  }

  // to += da|dq of the units times the state's columns of their weights, and the context's gradient likewise.
  void pull(const Tile& tile, int64_t task, int64_t step, Units units, Rows<const T> product, Rows<A> to) const {
    const int64_t width = units.count() * p_.gates;
    const T* const weight = p_.step_weight(task, step) + units.begin * p_.gates * p_.columns;
    const auto add = [&](int64_t offset, int64_t columns, A* out) {
      const Matrix<T> gradient(product.data, tile.count, width, product.stride), rows(weight + offset, width, columns, p_.columns);
      if constexpr (is_low<T>) {
        gemm(Matrix<T>(tile.slot.low.get(), tile.count, columns, columns), gradient, rows);
        kernels_.widen_add(tile.slot.low.get(), out, tile.count * columns);
      } else {
        gemm(Matrix<T>(out, tile.count, columns, columns), gradient, rows, true);
      }
    };
    if (out_.context) add(0, p_.context, out_.context + (step * p_.batch + tile.row) * p_.context);
    if (step > 0 || out_.x0) add(p_.context, p_.dim, to.data);
  }

  // The chunk's part of all dW.
  void add_weights() const {
    const int64_t count = p_.tasks * p_.weight_steps, threads = torch::stable::get_num_threads();
    const auto each = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) add_weight(i / p_.weight_steps, i % p_.weight_steps);
    };
    // Small products are too little work for several threads each.
    constexpr int64_t small = 1 << 25;
    if ((count % threads == 0 || count > 2 * threads) && width_ * p_.columns * rows_ < small)
      torch::stable::parallel_for(0, count, 1, each);
    else
      each(0, count);
  }

  // One task's dW at one step of the weights.
  void add_weight(int64_t task, int64_t weight_step) const {
    A* const out = out_.weight + (task * p_.weight_steps + weight_step) * width_ * p_.columns;
    bool add = row_ > 0;
    for (int64_t step = weight_step; step < p_.steps; step += p_.weight_steps) {
      const auto units = [&](Units range, Rows<const T> gradient) {
        if (!range.count()) return;
        const Rows<A> rows{out + range.begin * p_.gates * p_.columns, p_.columns};
        const int64_t width = range.count() * p_.gates;
        const Rows<const T> state = step ? Rows<const T>(states(task, step, 0)) : p_.x0.at(row_);
        if (p_.context) add_product(width, gradient, p_.context, {p_.context_states + (step * p_.batch + row_) * p_.context, p_.context}, rows, add);
        add_product(width, gradient, p_.dim, state, rows.at(0, p_.context), add);
      };
      const Rows<const T> gradient = products(task, step, 0);
      if (step == 0 && common_width_) {
        for (const Units range : {Units{0, p_.common.begin}, Units{p_.common.end, p_.dim}}) units(range, gradient.at(0, range.begin * p_.gates));
        if (task == 0)
          units(p_.common, common(0));
        else if (!add)
          std::fill_n(out + p_.common.begin * p_.gates * p_.columns, common_width_ * p_.columns, A(0));
      } else {
        units({0, p_.dim}, gradient);
      }
      add = true;
    }
  }

  // Column sums [T, W, G, D] of a tile into the gradient of the biases, [T, W, D, G].
  void add_biases(const A* sums, bool add) const {
    for (int64_t block = 0; block < p_.tasks * p_.weight_steps; ++block)
      for (int64_t i = 0; i < width_; ++i) {
        A& to = out_.bias[block * width_ + i];
        to = sums[block * width_ + i % p_.gates * p_.dim + i / p_.gates] + (add ? to : A(0));
      }
  }

  // to [width, columns] = or += gradient [rows, width]^T state [rows, columns].
  void add_product(int64_t width, Rows<const T> gradient, int64_t columns, Rows<const T> state, Rows<A> to, bool add) const {
    // Where the library adds a small product to what is there, it goes on with one chain of additions, whose error grows with its length:
    // small ones are computed apart, in blocks of rows. Low types are never added to in their own type.
    const bool small = width * columns < 16384, apart = is_low<T> || small;
    const int64_t block = small && !is_low<T> ? 128 : rows_;
    const Buffer<T> own(apart ? width * columns : 0);
    for (int64_t row = 0; row < rows_; row += block) {
      const int64_t count = std::min(block, rows_ - row);
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

  const Problem<T>& p_;
  const Kernels<T>& kernels_;
  const T* const grad_;
  const bool return_states_;
  const T* const gates_;
  const Gradients<A> out_;
  const int64_t width_, common_width_, sums_size_;
  const Tiles tiles_;
  const int64_t tile_, tiles_each_, rows_each_;
  int64_t row_ = 0, rows_ = 0;  // the chunk's
  Buffer<T> products_, states_, common_;
  std::vector<Slot> slots_;
};

}  // namespace dcrnn_fast::cpu
