// The backward of a tile of rows of the low-rank cell: it computes the states, a and g of a task again from z and y, and goes back through
// its steps. The gradients of the weights are summed over the tiles of a thread.
#pragma once

#include "low_rank.h"

namespace dcrnn_fast::cpu {

// One thread's sums of the gradients of weights, in the layout of the products. Zero at first.
template <typename T>
struct LowRankSums {
  using A = accumulator<T>;

  LowRankSums(const LowRankProblem<T>& p, bool banks, bool projections)
      : weight_size(banks ? p.tasks * p.weight_steps * p.dim * p.gates * p.rank_plane : 0),
        bias_size(banks ? p.tasks * p.weight_steps * p.gates * p.plane : 0),
        projection_size(projections ? p.projections * p.weight_steps * p.rank * p.gates * p.input_plane() : 0),
        memory(size()) {
    std::fill_n(memory.get(), size(), A(0));
  }

  int64_t size() const { return weight_size + bias_size + projection_size; }
  A* weight() const { return memory.get(); }                                // [tasks, W, D, G, rank_plane]
  A* bias() const { return memory.get() + weight_size; }                    // [tasks, W, G, plane]
  A* projection() const { return memory.get() + weight_size + bias_size; }  // [projections, W, r, G, context_plane + plane]

  int64_t weight_size, bias_size, projection_size;
  Buffer<A> memory;
};

template <typename T>
class LowRankWalk {
 public:
  using A = accumulator<T>;

  // What the walk needs of memory for a row, in bytes.
  static int64_t row_bytes(const LowRankProblem<T>& p) { return values_each(p) * sizeof(A); }

  LowRankWalk(const LowRankProblem<T>& problem, const LowRankSums<T>& sums, int64_t rows, const T* grad, bool return_states,
              const T* activations, T* dx0, T* dcontext)
      : p_(problem),
        sums_(sums),
        convert_(kernels<T>()),
        kernels_(low_rank_kernels<A>()),
        tile_(problem, rows),
        grad_(grad),
        activations_(activations),
        return_states_(return_states),
        dx0_out_(dx0),
        dcontext_out_(dcontext),
        states_(p_.steps * rows * p_.plane),
        activations_memory_(p_.steps * rows * p_.gates * p_.plane),
        z_(p_.steps * rows * p_.z_width()),
        d_(rows * p_.plane),
        task_dx0_(rows * p_.plane),
        dx0_(rows * p_.plane),
        products_(rows * p_.gates * p_.plane),
        dz_(rows * p_.z_width()),
        dz_sums_(p_.common ? sum_steps() * rows * p_.z_width() : 0),
        dcontext_(p_.common ? rows * p_.context_plane : p_.steps * rows * p_.context_plane) {}

  void run(int64_t row, int64_t rows) {
    tile_.begin(row, rows);
    std::fill_n(dx0_.get(), rows * p_.plane, A(0));
    if (p_.common) std::fill_n(dz_sums_.get(), sum_steps() * rows * p_.z_width(), A(0));
    if (!p_.common) std::fill_n(dcontext_.get(), p_.steps * rows * p_.context_plane, A(0));
    for (int64_t task = 0; task < p_.tasks && !p_.interruption.came(); ++task) {
      compute_again(task);
      for (int64_t step = p_.steps; step-- > 0 && !p_.interruption.came();) back(task, step);
      kernels_add(task_dx0_.get(), d_.get());
      kernels_add(d_.get(), dx0_.get());
    }
    // What all tasks multiplied alike goes back once, with the sum over the tasks.
    for (int64_t step = 0; p_.common && step < sum_steps() && !p_.interruption.came(); ++step) {
      const Rows<const A> dz = dz_sum(step);
      if (step == 0) {
        add_projection(0, step, dz, p_.context_plane, tile_.x0(), p_.plane);
        if (dx0_out_) pull(0, step, dz, p_.context_plane, {dx0_.get(), p_.plane}, p_.plane);
      }
      if (!p_.context) continue;
      add_projection(0, step, dz, 0, tile_.context(step), p_.context_plane);
      if (!dcontext_out_) continue;
      std::fill_n(dcontext_.get(), rows * p_.context_plane, A(0));
      pull(0, step, dz, 0, {dcontext_.get(), p_.context_plane}, p_.context_plane);
      write_context(step, {dcontext_.get(), p_.context_plane});
    }
    for (int64_t step = 0; !p_.common && dcontext_out_ && step < p_.steps; ++step) write_context(step, dcontext(step));
    for (int64_t r = 0; dx0_out_ && r < rows; ++r) convert_.narrow(dx0_.get() + r * p_.plane, dx0_out_ + (row + r) * p_.dim, p_.dim);
  }

 private:
  static int64_t values_each(const LowRankProblem<T>& p) {
    return p.plane * (4 + p.steps * (1 + p.gates) + p.gates) + p.z_width() * (p.steps + 2) + 2 * p.context_plane;
  }

  // The steps whose dz is summed over the tasks, if all have one projection: the first, and with a context all.
  int64_t sum_steps() const { return p_.context ? p_.steps : 1; }

  Rows<A> of_step(const Buffer<A>& buffer, int64_t step, int64_t width) const {
    return {buffer.get() + step * tile_.rows() * width, width};
  }
  Rows<A> dz_sum(int64_t step) const { return of_step(dz_sums_, step, p_.z_width()); }
  Rows<A> dcontext(int64_t step) const { return of_step(dcontext_, step, p_.context_plane); }
  Rows<const A> state(int64_t step) const { return step ? Rows<const A>(of_step(states_, step, p_.plane)) : tile_.x0(); }
  Rows<A> products() const { return {products_.get(), p_.gates * p_.plane}; }

  void kernels_add(const A* from, A* to) const { convert_.add(from, to, tile_.rows() * p_.plane); }

  // All z and y of a task, its states before each step, and a and g.
  void compute_again(int64_t task) {
    for (int64_t step = 0; step < p_.steps && !p_.interruption.came(); ++step) {
      const Rows<A> own = of_step(z_, step, p_.z_width());
      if (activations_) {
        for (int64_t r = 0; r < tile_.rows(); ++r)
          for (int64_t g = 0; g < p_.gates; ++g) {
            const T* const from = activations_ + (((task * p_.steps + step) * p_.batch + tile_.row() + r) * p_.gates + g) * p_.rank;
            convert_.widen(from, own[r] + g * p_.rank_plane, p_.rank);
          }
      } else {
        const Rows<const A> found = tile_.project(task, step, state(step), own);
        for (int64_t r = 0; found.data != own.data && r < tile_.rows(); ++r) std::copy_n(found[r], p_.z_width(), own[r]);
      }
      const Rows<A> next = step + 1 < p_.steps ? of_step(states_, step + 1, p_.plane) : Rows<A>{d_.get(), p_.plane};
      tile_.advance(task, step, own, state(step), next, of_step(activations_memory_, step, p_.gates * p_.plane));
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

  // One step: da|dq, dz|dy, and what they add to the gradients. Leaves the gradient of the state before the step in d.
  void back(int64_t task, int64_t step) {
    const bool last = step + 1 == p_.steps;
    if (last) {
      add_gradient(task, p_.steps, true);
      std::fill_n(task_dx0_.get(), tile_.rows() * p_.plane, A(0));
    }
    A* const bias = sums_.bias_size ? sums_.bias() + p_.block(task, step) * p_.gates * p_.plane : bias_memory();
    const LowRankGradient<A> pass{tile_.rows(),
                                  p_.plane,
                                  of_step(activations_memory_, step, p_.gates * p_.plane),
                                  tile_.x0(),
                                  Rows<const A>{d_.get(), p_.plane},
                                  {task_dx0_.get(), p_.plane},
                                  products(),
                                  bias};
    (p_.gates == 2 ? kernels_.gradient_gated : kernels_.gradient_cross)(pass);
    const Rows<const A> z = of_step(z_, step, p_.z_width());
    const Rows<A> dz{dz_.get(), p_.z_width()};
    for (int64_t g = 0; g < p_.gates; ++g) {
      const Rows<const A> gradient = products().at(0, g * p_.plane);
      const A* const weight = p_.weight_rows(task, step) + g * p_.dim * p_.rank_plane;
      tile_.multiply(gradient, p_.dim, {weight, p_.rank_plane}, dz.at(0, g * p_.rank_plane), p_.rank_plane, false);
      if (!sums_.weight_size) continue;
      // dW += da^T z
      A* const to = sums_.weight() + (p_.block(task, step) * p_.dim * p_.gates + g) * p_.rank_plane;
      kernels_.product({p_.dim, p_.rank_plane, tile_.rows(), gradient.data, 1, gradient.stride, z.at(0, g * p_.rank_plane),
                        Rows<A>{to, p_.gates * p_.rank_plane}, true});
    }
    const bool summed = p_.common && step < sum_steps();
    if (summed) convert_.add(dz.data, dz_sum(step).data, tile_.rows() * p_.z_width());
    if (step > 0 || !p_.common) {
      add_projection(task, step, dz, p_.context_plane, state(step), p_.plane);
      if (step > 0 || dx0_out_) pull(task, step, dz, p_.context_plane, {d_.get(), p_.plane}, p_.plane);
    }
    if (p_.context && !p_.common) {
      add_projection(task, step, dz, 0, tile_.context(step), p_.context_plane);
      if (dcontext_out_) pull(task, step, dz, 0, dcontext(step), p_.context_plane);
    }
    if (return_states_) add_gradient(task, step, false);
  }

  // to += dz P + dy Q, for the `width` columns of u from `column` on.
  void pull(int64_t task, int64_t step, Rows<const A> dz, int64_t column, Rows<A> to, int64_t width) const {
    const Rows<const A> rows{p_.projection_rows(task, step) + column, p_.gates * p_.input_plane()};
    for (int64_t g = 0; g < p_.gates; ++g)
      tile_.multiply(dz.at(0, g * p_.rank_plane), p_.rank, rows.at(0, g * p_.input_plane()), to, width, true);
  }

  // dP += dz^T u and dQ += dy^T u, for the `width` columns of u from `column` on.
  void add_projection(int64_t task, int64_t step, Rows<const A> dz, int64_t column, Rows<const A> u, int64_t width) const {
    if (!sums_.projection_size) return;
    const Rows<A> to{sums_.projection() + p_.projection_block(task, step) * p_.rank * p_.gates * p_.input_plane() + column,
                     p_.gates * p_.input_plane()};
    for (int64_t g = 0; g < p_.gates; ++g)
      kernels_.product({p_.rank, width, tile_.rows(), dz.data + g * p_.rank_plane, 1, dz.stride, u, to.at(0, g * p_.input_plane()), true});
  }

  void write_context(int64_t step, Rows<const A> from) const {
    T* const to = dcontext_out_ + (step * p_.batch + tile_.row()) * p_.context;
    for (int64_t r = 0; r < tile_.rows(); ++r) convert_.narrow(from[r], to + r * p_.context, p_.context);
  }

  A* bias_memory() {
    if (!bias_.get()) bias_ = Buffer<A>(p_.gates * p_.plane);
    std::fill_n(bias_.get(), p_.gates * p_.plane, A(0));
    return bias_.get();
  }

  const LowRankProblem<T>& p_;
  const LowRankSums<T>& sums_;
  const Kernels<T>& convert_;
  const LowRankKernels<A>& kernels_;
  LowRankTile<T> tile_;
  const T *const grad_, *const activations_;
  const bool return_states_;
  T *const dx0_out_, *const dcontext_out_;
  Buffer<A> states_, activations_memory_, z_, d_, task_dx0_, dx0_, products_, dz_, dz_sums_, dcontext_, bias_;
};

}  // namespace dcrnn_fast::cpu
