// cross_rnn's backward on the CPU. Task after task, a chunk of rows at a time: tiles of the chunk walk back through the steps, in parallel,
// and leave da|dq and the states of every step; then one product over them gives the chunk's part of the task's dW. The chunk bounds the
// scratch memory; tasks in order make the sums over tasks the same on every run.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cross_rnn.h"

namespace dcrnn_fast::cpu {
namespace {

using torch::stable::new_empty;
using torch::stable::new_zeros;

// Bits of `needs`, in the order of the operator's inputs.
enum Needs : int64_t { need_x0 = 1, need_weights = 2 | 4 | 8 | 16, need_context = 32 };

template <typename T>
class Backward {
 public:
  using A = accumulator<T>;

  // grad as the forward's output; gates null where the forward did not keep them; dx0 [B, D] and dcontext [steps, B, C] zeroed; dweight
  // [T, W * D * G, K] and dbias [T, W * D * G] written. Null where a gradient is not wanted.
  Backward(const Problem<T>& problem, const T* grad, bool return_states, const T* gates, A* dx0, A* dcontext, A* dweight, A* dbias)
      : p_(problem),
        kernels_(kernels<T>()),
        grad_(grad),
        return_states_(return_states),
        gates_(gates),
        dx0_(dx0),
        dcontext_(dcontext),
        dweight_(dweight),
        dbias_(dbias),
        width_(p_.dim * p_.gates),
        sums_size_(p_.weight_steps * width_),
        tiles_(p_, sizeof(T)),
        tile_(tiles_.most_rows()),
        chunk_tiles_(std::min<int64_t>(tiles_.count, std::max<int64_t>(4, 2 * torch::stable::get_num_threads()))),
        chunk_(chunk_tiles_ * tile_),
        products_(p_.steps * chunk_ * width_),
        states_(dweight ? p_.steps * chunk_ * p_.dim : 0),
        sums_(chunk_tiles_ * sums_size_),
        partial_(is_low<T> && dweight ? sums_size_ * p_.columns : 0) {}

  void run() {
    for (int64_t task = 0; task < p_.tasks; ++task) {
      for (int64_t first = 0; first < tiles_.count; first += chunk_tiles_) {
        const int64_t last = std::min(first + chunk_tiles_, tiles_.count), row = tiles_.begin(first), rows = tiles_.begin(last) - row;
        torch::stable::parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
          Scratch scratch(*this);
          for (int64_t i = begin; i < end; ++i) walk(scratch, task, row, rows, i, sums_.get() + (i - first) * sums_size_);
        });
        if (dweight_) {
          add_weights(task, row, rows);
          add_biases(task, first == 0, last - first);
        }
      }
    }
  }

 private:
  // One thread's memory for a tile.
  struct Scratch {
    Buffer<A> d, dx0, sums, step_sums;
    Buffer<T> dstate, gates, dcontext;
    Buffer<A> state;
    std::optional<ForwardTile<T>> forward;

    explicit Scratch(const Backward& b)
        : d(b.tile_ * b.p_.dim),
          dx0(b.dx0_ ? 0 : b.tile_ * b.p_.dim),
          sums(b.width_),
          step_sums(b.width_),
          dstate(is_low<T> ? b.tile_ * b.p_.dim : 0),
          gates(b.gates_ ? 0 : b.p_.steps * b.tile_ * b.width_),
          dcontext(is_low<T> && b.dcontext_ ? b.tile_ * b.p_.context : 0),
          state(is_low<T> ? b.tile_ * b.p_.dim : 0) {
      if (!b.gates_) forward.emplace(b.p_, b.tile_);
      if (dx0.get()) std::fill(dx0.get(), dx0.get() + b.tile_ * b.p_.dim, A(0));
    }
  };

  Rows<T> products(int64_t step, int64_t rows, int64_t row) const { return {products_.get() + (step * rows + row) * width_, width_}; }
  Rows<T> states(int64_t step, int64_t rows, int64_t row) const { return {states_.get() + (step * rows + row) * p_.dim, p_.dim}; }

  // Tile `i`, in the chunk of `rows` rows at `first`, from the last step to the first.
  void walk(Scratch& scratch, int64_t task, int64_t first, int64_t rows, int64_t i, A* sums) const {
    const int64_t row = tiles_.begin(i), local = row - first, count = tiles_.begin(i + 1) - row, dim = p_.dim;
    const Rows<const T> x0 = p_.x0.at(row);
    const auto gates = [&](int64_t step) -> Rows<const T> {
      return {gates_ ? gates_ + ((task * p_.steps + step) * p_.batch + row) * width_ : scratch.gates.get() + step * tile_ * width_, width_};
    };
    if (!gates_) {
      scratch.forward->begin(row, count);
      scratch.forward->run(task, [](int64_t) { return Rows<T>{}; },
                           [&](int64_t step) { return Rows<T>{scratch.gates.get() + step * tile_ * width_, width_}; });
    }
    if (dweight_) keep_states(scratch, gates, x0, rows, local, count);

    std::fill(sums, sums + sums_size_, A(0));
    const Rows<A> d{scratch.d.get(), dim}, dx0{dx0_ ? dx0_ + row * dim : scratch.dx0.get(), dim};
    for (int64_t step = p_.steps; step-- > 0;) {
      const bool last = step + 1 == p_.steps;
      const Rows<T> product = products(step, rows, local);
      const BackwardStep<T> pass{count, dim, gates(step), x0, last || return_states_ ? grad(task, step + 1, row) : Rows<const T>{},
                                 last ? Rows<const A>{} : Rows<const A>(d), d, dx0, product, scratch.sums.get()};
      elementwise(pass, scratch.step_sums.get());
      kernels_.add(scratch.step_sums.get(), sums + step % p_.weight_steps * width_, width_);
      const T* const weight = p_.step_weight(task, step);
      if (dcontext_) add_context(scratch, weight, product, step, row, count, task > 0);
      if (step > 0 || dx0_) add_state(scratch, weight, product, count);
    }
    if (!dx0_) return;
    for (int64_t r = 0; r < count; ++r) {
      kernels_.add(d[r], dx0[r], dim);
      if (return_states_) kernels_.widen_add(grad(task, 0, row)[r], dx0[r], dim);
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

  // The gradient of the state after `step` steps, from row `row` on.
  Rows<const T> grad(int64_t task, int64_t step, int64_t row) const {
    const int64_t block = return_states_ ? task * (p_.steps + 1) + step : task;
    return {grad_ + (block * p_.batch + row) * p_.dim, p_.dim};
  }

  // Every step's state, computed from the gates again: an element-wise pass costs less than keeping the states from the forward.
  template <typename Gates>
  void keep_states(Scratch& scratch, const Gates& gates, Rows<const T> x0, int64_t rows, int64_t local, int64_t count) const {
    const Rows<T> start = states(0, rows, local);
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(static_cast<void*>(start[r]), x0[r], p_.dim * sizeof(T));
      if constexpr (is_low<T>) kernels_.widen(x0[r], scratch.state.get() + r * p_.dim, p_.dim);
    }
    for (int64_t step = 0; step + 1 < p_.steps; ++step) {
      const Rows<T> to = states(step + 1, rows, local);
      StateStep<T> pass{count, p_.dim, gates(step), x0, {}, {}, {}};
      if constexpr (is_low<T>) {
        const Rows<A> state{scratch.state.get(), p_.dim};
        pass.state = state, pass.next = state, pass.low = to;
      } else {
        pass.state = states(step, rows, local), pass.next = to;
      }
      (p_.gates == 2 ? kernels_.states_gated : kernels_.states_cross)(pass);
    }
  }

  // d += da|dq times the state's columns of the weights.
  void add_state(Scratch& scratch, const T* weight, Rows<T> product, int64_t count) const {
    const Matrix<T> gradient(product.data, count, width_, width_), columns(weight + p_.context, width_, p_.dim, p_.columns);
    if constexpr (is_low<T>) {
      gemm(Matrix<T>(scratch.dstate.get(), count, p_.dim, p_.dim), gradient, columns);
      kernels_.widen_add(scratch.dstate.get(), scratch.d.get(), count * p_.dim);
    } else {
      gemm(Matrix<T>(scratch.d.get(), count, p_.dim, p_.dim), gradient, columns, true);
    }
  }

  void add_context(Scratch& scratch, const T* weight, Rows<T> product, int64_t step, int64_t row, int64_t count, bool add) const {
    const Matrix<T> gradient(product.data, count, width_, width_), columns(weight, width_, p_.context, p_.columns);
    A* const out = dcontext_ + (step * p_.batch + row) * p_.context;
    if constexpr (is_low<T>) {
      gemm(Matrix<T>(scratch.dcontext.get(), count, p_.context, p_.context), gradient, columns);
      (add ? kernels_.widen_add : kernels_.widen)(scratch.dcontext.get(), out, count * p_.context);
    } else {
      gemm(Matrix<T>(out, count, p_.context, p_.context), gradient, columns, add);
    }
  }

  // The chunk's part of the task's weight gradients.
  void add_weights(int64_t task, int64_t row, int64_t rows) {
    A* const out = dweight_ + task * sums_size_ * p_.columns;
    T* target;
    if constexpr (is_low<T>)
      target = partial_.get();
    else
      target = out;
    const bool tied = p_.weight_steps == 1;
    const bool add = !is_low<T> && row > 0;
    const auto product = [&](int64_t step, int64_t count, const T* states, int64_t columns, int64_t offset, bool accumulate) {
      const Matrix<T> gradient(products_.get() + step * rows * width_, width_, count, 1, width_);
      const int64_t start = (tied ? 0 : step) * width_ * p_.columns + offset;
      gemm(Matrix<T>(target + start, width_, columns, p_.columns), gradient, Matrix<T>(states, count, columns, columns), accumulate);
    };
    // The library adds a few hundred rows in one chain: below that, a product a step has the smaller rounding error.
    constexpr int64_t chain = 256;
    if (tied && rows >= chain)
      product(0, p_.steps * rows, states_.get(), p_.dim, p_.context, add);
    else
      for (int64_t step = 0; step < p_.steps; ++step)
        product(step, rows, states_.get() + step * rows * p_.dim, p_.dim, p_.context, add || (tied && step > 0));
    if (p_.context)
      for (int64_t step = 0; step < p_.steps; ++step)
        product(step, rows, p_.context_states + (step * p_.batch + row) * p_.context, p_.context, 0, add || (tied && step > 0));
    if constexpr (is_low<T>) (row ? kernels_.widen_add : kernels_.widen)(partial_.get(), out, sums_size_ * p_.columns);
  }

  void add_biases(int64_t task, bool first, int64_t tiles) {
    A* const out = dbias_ + task * sums_size_;
    if (first) std::fill(out, out + sums_size_, A(0));
    for (int64_t i = 0; i < tiles; ++i) kernels_.add(sums_.get() + i * sums_size_, out, sums_size_);
  }

  const Problem<T>& p_;
  const Kernels<T>& kernels_;
  const T* const grad_;
  const bool return_states_;
  const T* const gates_;
  A *const dx0_, *const dcontext_, *const dweight_, *const dbias_;
  const int64_t width_, sums_size_;
  const Tiles tiles_;
  const int64_t tile_, chunk_tiles_, chunk_;
  Buffer<T> products_, states_;
  Buffer<A> sums_;
  Buffer<T> partial_;
};

// A gradient's tensor and what it is summed in: the tensor's own memory where the types are the same.
template <typename T>
struct Gradient {
  using A = accumulator<T>;
  Tensor tensor;
  Buffer<A> wide;
  A* data = nullptr;

  Gradient(const Tensor& like, bool wanted, const std::vector<int64_t>& shape) : tensor(wanted ? new_zeros(like, shape) : new_empty(like, {0})) {
    if (!wanted) return;
    if constexpr (is_low<T>) {
      wide = Buffer<A>(tensor.numel());
      std::fill(wide.get(), wide.get() + tensor.numel(), A(0));
      data = wide.get();
    } else {
      data = static_cast<A*>(tensor.mutable_data_ptr());
    }
  }

  void finish() {
    if constexpr (is_low<T>)
      if (data) kernels<T>().narrow(data, static_cast<T*>(tensor.mutable_data_ptr()), tensor.numel());
  }
};

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Arguments& arguments, const Tensor& grad, const Tensor& gates, bool return_states, int64_t needs,
                   const std::vector<int64_t>& context_shape) {
  using A = accumulator<T>;
  const Tensor& like = arguments.x0;
  const Problem<T> p(arguments);
  const bool weights = needs & need_weights, has_work = p.batch && p.tasks;
  Gradient<T> dx0(like, needs & need_x0, {p.batch, p.dim});
  Gradient<T> dcontext(like, needs & need_context, context_shape);
  Tensor banks[4];
  const Tensor* const inputs[4] = {&arguments.shared_weight, &arguments.shared_bias, &arguments.private_weight, &arguments.private_bias};
  for (int i = 0; i < 4; ++i) {
    const auto sizes = inputs[i]->sizes();
    const std::vector<int64_t> shape(sizes.begin(), sizes.end());
    banks[i] = !weights ? new_empty(like, {0}) : has_work ? new_empty(like, shape) : new_zeros(like, shape);
  }
  if (has_work) {
    const int64_t units = p.tasks * p.bank.rows * p.gates;
    const Buffer<A> dweight(weights ? units * p.columns : 0), dbias(weights ? units : 0);
    Backward<T>(p, static_cast<const T*>(grad.const_data_ptr()), return_states,
                gates.numel() ? static_cast<const T*>(gates.const_data_ptr()) : nullptr, dx0.data, p.context ? dcontext.data : nullptr, dweight.get(),
                dbias.get())
        .run();
    if (weights) {
      const Readers readers(p.bank);
      const auto data = [&](int i) { return static_cast<T*>(banks[i].mutable_data_ptr()); };
      reduce_rows(p.bank, readers, dweight.get(), data(0), data(2), p.gates * p.columns);
      reduce_rows(p.bank, readers, dbias.get(), data(1), data(3), p.gates);
    }
  }
  dx0.finish();
  dcontext.finish();
  return {dx0.tensor, banks[0], banks[1], banks[2], banks[3], dcontext.tensor};
}

Gradients cross_rnn_backward(Tensor grad, Tensor gates, Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight,
                             Tensor private_bias, Tensor index, int64_t steps, std::string cell, std::optional<Tensor> context, bool return_states,
                             int64_t needs) {
  Arguments arguments{x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context};
  arguments.prepare();
  const Sizes sizes(arguments);
  check_alike(grad, "grad", x0, "x0");
  check_alike(gates, "gates", x0, "x0");
  check(grad.dim() == (return_states ? 4 : 3) && grad.numel() == sizes.tasks * (return_states ? steps + 1 : 1) * sizes.batch * sizes.dim,
        "grad: got shape ", shape(grad), ", expected the shape of cross_rnn's first output");
  check(gates.numel() == 0 || gates.numel() == sizes.tasks * steps * sizes.batch * sizes.dim * sizes.gates, "gates: got shape ", shape(gates),
        ", expected the shape of cross_rnn's second output");
  check(!(needs & need_context) || context, "needs: asks for the gradient of context, which is absent");
  const std::vector<int64_t> context_shape{steps, sizes.batch, sizes.context};
  grad = torch::stable::contiguous(grad), gates = torch::stable::contiguous(gates);
  return with_type(x0, "cross_rnn_backward", [&](auto zero) {
    return backward<decltype(zero)>(arguments, grad, gates, return_states, needs, context_shape);
  });
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("cross_rnn_backward", TORCH_BOX(&dcrnn_fast::cpu::cross_rnn_backward)); }
