// The backward of a tile of rows of the low-rank cell: it computes the states, a and g of a task again from z and y, and goes back through
// its steps. The gradients of the weights are summed over the tiles of a thread.
#pragma once

#include "low_rank.h"

namespace dcrnn_fast::cpu {

// One thread's sums of the gradients of weights, in the layout of the products. Zero at first.
template <typename T, typename O>
struct LowRankSums {
  using A = accumulator<T>;

  LowRankSums(const LowRankRecurrence<T, O>& p, bool weights, bool projections)
      : weight_size(weights ? p.tasks * p.weight_steps * p.gates * p.rank * p.plane : 0),
        bias_size(weights ? p.tasks * p.weight_steps * p.gates * p.plane : 0),
        projection_size(projections ? p.projections * p.weight_steps * p.rank * p.gates * p.input_plane() : 0),
        memory(size()),
        biases(bias_size) {
    clear();
  }

  int64_t size() const { return weight_size + projection_size; }
  int64_t bytes() const { return size() * sizeof(A) + bias_size * sizeof(double); }
  A* weight() const { return memory.get(); }                    // [tasks, W, G, r, plane]
  A* projection() const { return memory.get() + weight_size; }  // [projections, W, r, G, context_plane + plane]
  // [tasks, W, G, plane]. The rounding error of one long chain of additions would grow with the batch.
  double* bias() const { return biases.get(); }

  // Adds the sums to `total`, and begins again at zero.
  void move_to(LowRankSums& total) {
    kernels<T>().add(memory.get(), total.memory.get(), size());
    for (int64_t i = 0; i < bias_size; ++i) total.bias()[i] += bias()[i];
    clear();
  }

  int64_t weight_size, bias_size, projection_size;
  Buffer<A> memory;
  Buffer<double> biases;

 private:
  void clear() {
    std::fill_n(memory.get(), size(), A(0));
    std::fill_n(biases.get(), bias_size, 0.0);
  }
};

// Rows as an operand of products over the rows, in the layout of a right operand of `width` columns.
template <typename O>
class RowOperand {
 public:
  struct Terms {
    const O* data;
    int64_t width;
    Terms at(int64_t column) const { return {data + column * group<O>, width}; }
  };

  RowOperand(int64_t rows, int64_t width, bool wanted) : memory_(is_low<O> && wanted ? grouped<O>(rows) * width : 0) {}

  Terms of(const LowRankKernels<O>& kernels, Rows<const O> rows, int64_t count, int64_t width) const {
    if constexpr (!is_low<O>) return {rows.data, rows.stride};
    kernels.over_rows(rows, count, width, memory_.get());
    return {memory_.get(), width};
  }

 private:
  Buffer<O> memory_;
};

template <typename T, typename O>
class LowRankWalk {
 public:
  using A = accumulator<T>;
  using Terms = typename RowOperand<O>::Terms;

  // What the walk needs of memory for a row, in bytes.
  static int64_t row_bytes(const LowRankRecurrence<T, O>& p) { return values_each(p) * sizeof(A); }

  LowRankWalk(const LowRankRecurrence<T, O>& recurrence, const LowRankSums<T, O>& sums, int64_t rows, const T* grad, bool return_states,
              const T* activations, T* dx0, T* dcontext)
      : p_(recurrence),
        sums_(sums),
        convert_(kernels<T>()),
        kernels_(low_rank_kernels<O>()),
        tile_(recurrence, rows),
        grad_(grad),
        activations_(activations),
        return_states_(return_states),
        dx0_out_(dx0),
        dcontext_out_(dcontext),
        states_(p_.steps * rows, p_.plane),
        z_(p_.steps * rows, p_.z_width()),
        products_(rows, p_.gates * p_.plane),
        dz_(rows, p_.z_width()),
        dz_sums_(p_.common ? sum_steps() * rows : 0, p_.z_width()),
        activations_memory_(p_.steps * rows * p_.gates * p_.plane),
        alike_(rows * p_.alike()),
        d_(rows * p_.plane),
        dx0_(rows * p_.plane),
        products_over_rows_(rows, p_.gates * p_.plane, sums.weight_size),
        z_over_rows_(rows, p_.z_width(), sums.weight_size),
        dz_over_rows_(rows, p_.z_width(), sums.projection_size),
        inputs_over_rows_(rows, std::max(p_.plane, p_.context_plane), sums.projection_size),
        bias_(p_.gates * p_.plane),
        dcontext_(dcontext ? (p_.common ? 1 : p_.steps) * rows * p_.context_plane : 0) {}

  void run(int64_t row, int64_t rows) {
    tile_.begin(row, rows);
    std::fill_n(dx0_.get(), rows * p_.plane, A(0));
    if (p_.common) std::fill_n(dz_sums_.wide().data, sum_steps() * rows * p_.z_width(), A(0));
    if (!p_.common && dcontext_out_) std::fill_n(dcontext_.get(), p_.steps * rows * p_.context_plane, A(0));
    for (int64_t task = 0; task < p_.tasks; ++task) {
      compute_again(task);
      for (int64_t step = p_.steps; step-- > 0;) back(task, step);
      convert_.add(d_.get(), dx0_.get(), rows * p_.plane);
    }
    // What all tasks multiplied alike goes back once, with the sum over the tasks.
    for (int64_t step = 0; p_.common && step < sum_steps(); ++step) {
      tile_.narrow(dz_sums_.wide(step * rows), dz_sums_.low(step * rows), p_.gates, p_.rank, p_.rank_plane);
      const Rows<const O> dz = dz_sums_.low(step * rows);
      if (step == 0) {
        add_projection(0, step, dz, p_.context_plane, tile_.x0().low, p_.plane);
        if (dx0_out_) pull(0, step, dz, p_.context_plane, {dx0_.get(), p_.plane}, p_.plane);
      }
      if (!p_.context) continue;
      add_projection(0, step, dz, 0, tile_.context(step).low, p_.context_plane);
      if (!dcontext_out_) continue;
      std::fill_n(dcontext_.get(), rows * p_.context_plane, A(0));
      pull(0, step, dz, 0, {dcontext_.get(), p_.context_plane}, p_.context_plane);
      write_context(step, {dcontext_.get(), p_.context_plane});
    }
    for (int64_t step = 0; !p_.common && dcontext_out_ && step < p_.steps; ++step) write_context(step, dcontext(step));
    if (dx0_out_) narrow_rows<T>(convert_, rows, {dx0_.get(), p_.plane}, p_.dim, {dx0_out_ + row * p_.dim, p_.dim});
  }

 private:
  static int64_t values_each(const LowRankRecurrence<T, O>& p) {
    return p.alike() + p.plane * (3 + p.steps * (1 + p.gates) + p.gates) + p.z_width() * (p.steps + 2) +
           (p.common ? 2 : p.steps + 1) * p.context_plane;
  }

  // The steps whose dz is summed over the tasks, if all have one projection: the first, and with a context all.
  int64_t sum_steps() const { return p_.context ? p_.steps : 1; }

  Rows<A> of_step(const Buffer<A>& buffer, int64_t step, int64_t width) const {
    return {buffer.get() + step * tile_.rows() * width, width};
  }
  Rows<A> dcontext(int64_t step) const { return of_step(dcontext_, step, p_.context_plane); }
  BothRows<O> state(int64_t step) const { return step ? states_.rows(step * tile_.rows()) : tile_.x0(); }

  // All z and y of a task, its states before each step, and a and g.
  void compute_again(int64_t task) {
    for (int64_t step = 0; step < p_.steps; ++step) {
      const int64_t first = step * tile_.rows();
      const Rows<A> z = z_.wide(first);
      for (int64_t g = 0; activations_ && g < p_.gates; ++g) {
        const T* const from = activations_ + (((task * p_.steps + step) * p_.batch + tile_.row()) * p_.gates + g) * p_.rank;
        widen_rows(convert_, tile_.rows(), {from, p_.gates * p_.rank}, p_.rank, z.at(0, g * p_.rank_plane), p_.rank_plane);
      }
      if (!activations_) tile_.project(task, step, state(step).low, z);
      tile_.narrow(z, z_.low(first), p_.gates, p_.rank, p_.rank_plane);
      const bool last = step + 1 == p_.steps;  // whose next state nobody reads
      const int64_t next = last ? 0 : first + tile_.rows();
      tile_.advance(task, step, z_.low(first), state(step).wide, states_.wide(next), states_.low(next),
                    of_step(activations_memory_, step, p_.gates * p_.plane));
    }
  }

  // Adds the gradient of the state after `step` steps to d.
  void add_gradient(int64_t task, int64_t step, bool first) const {
    const int64_t block = return_states_ ? task * (p_.steps + 1) + step : task;
    const T* const from = grad_ + (block * p_.batch + tile_.row()) * p_.dim;
    for (int64_t r = 0; r < tile_.rows(); ++r) {
      A* const to = d_.get() + r * p_.plane;
      (first ? convert_.widen : convert_.widen_add)(from + r * p_.dim, to, p_.dim);
      if (first) std::fill(to + p_.dim, to + p_.plane, A(0));
    }
  }

  // The first step of the units that are alike goes back once, with the last task and the sum of all tasks' gradients. Returns the first
  // unit whose first step goes back with this task.
  int64_t hand_on(int64_t task) {
    const int64_t units = p_.alike();
    const bool last = task + 1 == p_.tasks;
    for (int64_t r = 0; units && r < tile_.rows(); ++r) {
      A *const sum = alike_.get() + r * units, *const d = d_.get() + r * p_.plane;
      for (int64_t i = 0; i < units; ++i) {
        const A total = d[i] + (task ? sum[i] : A(0));
        (last ? d : sum)[i] = total;
        if (!last) d[i] = 0;
      }
    }
    return last ? 0 : units;
  }

  // One step: da|dq, dz|dy, and what they add to the gradients. Leaves the gradient of the state before the step in d.
  void back(int64_t task, int64_t step) {
    if (step + 1 == p_.steps) add_gradient(task, p_.steps, true);
    const int64_t first = step == 0 ? hand_on(task) : 0;
    std::fill_n(bias_.get(), p_.gates * p_.plane, A(0));
    const LowRankGradient<O> pass{tile_.rows(),
                                  first,
                                  p_.dim,
                                  p_.plane,
                                  of_step(activations_memory_, step, p_.gates * p_.plane),
                                  tile_.x0().wide,
                                  Rows<const A>{d_.get(), p_.plane},
                                  {dx0_.get(), p_.plane},
                                  products_.wide(),
                                  products_.low(),
                                  bias_.get()};
    (p_.gates == 2 ? kernels_.gradient_gated : kernels_.gradient_cross)(pass);
    if (sums_.bias_size) {
      double* const to = sums_.bias() + p_.block(task, step) * p_.gates * p_.plane;
      for (int64_t i = 0; i < p_.gates * p_.plane; ++i) to[i] += double(bias_.get()[i]);
    }
    for (int64_t g = 0; g < p_.gates; ++g)
      tile_.multiply(products_.low().at(0, g * p_.plane + first), p_.dim - first, p_.weight_rows(task, step, g) + first * p_.rank_plane,
                     p_.rank_plane, dz_.wide().at(0, g * p_.rank_plane), p_.rank_plane, false);
    if (sums_.weight_size) {
      const Terms da = products_over_rows_.of(kernels_, products_.low(), tile_.rows(), p_.gates * p_.plane);
      const Terms z = z_over_rows_.of(kernels_, z_.low(step * tile_.rows()), tile_.rows(), p_.z_width());
      A* const to = sums_.weight() + p_.block(task, step) * p_.gates * p_.rank * p_.plane + first;
      for (int64_t g = 0; g < p_.gates; ++g)
        add_rows(z.at(g * p_.rank_plane), p_.rank, da.at(g * p_.plane + first), p_.plane - first, {to + g * p_.rank * p_.plane, p_.plane});
    }
    const bool summed = p_.common && step < sum_steps();
    if (summed) convert_.add(dz_.wide().data, dz_sums_.wide(step * tile_.rows()).data, tile_.rows() * p_.z_width());
    tile_.narrow(dz_.wide(), dz_.low(), p_.gates, p_.rank, p_.rank_plane);
    if (step > 0 || !p_.common) {
      add_projection(task, step, dz_.low(), p_.context_plane, state(step).low, p_.plane);
      if (step > 0 || dx0_out_) pull(task, step, dz_.low(), p_.context_plane, {d_.get(), p_.plane}, p_.plane);
    }
    if (p_.context && !p_.common) {
      add_projection(task, step, dz_.low(), 0, tile_.context(step).low, p_.context_plane);
      if (dcontext_out_) pull(task, step, dz_.low(), 0, dcontext(step), p_.context_plane);
    }
    if (return_states_) add_gradient(task, step, false);
  }

  // to [columns, width] += left^T right, over the tile's rows: z^T da for the transpose of dW, dz^T u for dP.
  void add_rows(Terms left, int64_t columns, Terms right, int64_t width, Rows<A> to) const {
    kernels_.product({columns, width, grouped<O>(tile_.rows()), left.data, group<O>, left.width, right.data, right.width, to, true});
  }

  // to += dz P + dy Q, for the `width` columns of u from `column` on.
  void pull(int64_t task, int64_t step, Rows<const O> dz, int64_t column, Rows<A> to, int64_t width) const {
    for (int64_t g = 0; g < p_.gates; ++g) {
      const O* const rows = p_.projection_rows(task, step, g) + column * group<O>;
      tile_.multiply(dz.at(0, g * p_.rank_plane), p_.rank, rows, p_.input_plane(), to, width, true);
    }
  }

  // dP += dz^T u and dQ += dy^T u, for the `width` columns of u from `column` on.
  void add_projection(int64_t task, int64_t step, Rows<const O> dz, int64_t column, Rows<const O> u, int64_t width) const {
    if (!sums_.projection_size) return;
    const Terms left = dz_over_rows_.of(kernels_, dz, tile_.rows(), p_.z_width());
    const Terms right = inputs_over_rows_.of(kernels_, u, tile_.rows(), width);
    const Rows<A> to{sums_.projection() + p_.projection_block(task, step) * p_.rank * p_.gates * p_.input_plane() + column,
                     p_.gates * p_.input_plane()};
    for (int64_t g = 0; g < p_.gates; ++g) add_rows(left.at(g * p_.rank_plane), p_.rank, right, width, to.at(0, g * p_.input_plane()));
  }

  void write_context(int64_t step, Rows<const A> from) const {
    T* const to = dcontext_out_ + (step * p_.batch + tile_.row()) * p_.context;
    narrow_rows<T>(convert_, tile_.rows(), from, p_.context, {to, p_.context});
  }

  const LowRankRecurrence<T, O>& p_;
  const LowRankSums<T, O>& sums_;
  const Kernels<T>& convert_;
  const LowRankKernels<O>& kernels_;
  LowRankTile<T, O> tile_;
  const T *const grad_, *const activations_;
  const bool return_states_;
  T *const dx0_out_, *const dcontext_out_;
  BothBuffers<O> states_, z_, products_, dz_, dz_sums_;
  Buffer<A> activations_memory_, alike_, d_, dx0_;
  RowOperand<O> products_over_rows_, z_over_rows_, dz_over_rows_, inputs_over_rows_;
  Buffer<A> bias_, dcontext_;
};

}  // namespace dcrnn_fast::cpu
