// Launches of cross_rnn's backward.
#include "cross_rnn_backward_kernels.h"
#include "tiles.h"
#include "weight_gradients.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Kernel, typename T>
void launch_product(const Cell<T>& cell, const ProductArguments<T>& arguments) {
  const int64_t width = Kernel::context ? cell.columns : cell.dim;
  const Grid grid{divide_up(cell.batch, Kernel::Tile::rows) * divide_up(width, Kernel::Tile::columns),
                  Kernel::context ? cell.steps : cell.tasks()};
  launch(cross_rnn_backward<Kernel>, grid, Kernel::threads, Kernel::shared_bytes(), cell.gpu.stream, arguments);
}

// With M the kind of mathematics, and G vectors a unit.
template <typename M, int G, typename T = typename M::Value>
void backward_by(const Cell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out) {
  using A = accumulator<T>;
  using SmallTile = typename ProductTiles<M>::Small;
  using LargeTile = typename ProductTiles<M>::Large;
  const Gpu& gpu = cell.gpu;
  const bool large = takes_large<LargeTile>(cell, cell.dim);
  const int last = cell.steps - 1;
  const int64_t row_tiles = divide_up(cell.batch, large ? LargeTile::rows : SmallTile::rows), tasks = cell.tasks();
  const int64_t all = cell.states(), plane = G * all, sums_step = row_tiles * G * cell.dim;
  const auto states = gpu.memory<T>(out.weights() && last ? tasks * cell.steps * all : 0), d = gpu.memory<T>(last ? tasks * all : 0);
  const auto gradients = gpu.memory<T>(tasks * cell.steps * plane);
  const auto dx0 = gpu.memory<A>(out.x0 ? tasks * all : 0), sums = gpu.memory<A>(tasks * cell.steps * sums_step);
  const bool vector =
      in_vectors<T>({cell.dim, cell.columns}, cell.x0, cell.context, cell.weight.shared, cell.weight.own, grad, activations, out.context);

  if (states) {
    const Grid grid{divide_up(cell.batch * divide_up(cell.dim, element_units), element_threads), tasks};
    launch(cross_rnn_states<G, T>, grid, element_threads, 0, gpu.stream,
           {cell.x0, activations, states.get(), cell.batch, cell.dim, cell.steps, vector});
  }
  ProductArguments<T> a{};
  a.weight = cell.weight, a.batch = cell.batch, a.dim = cell.dim, a.columns = cell.columns, a.vector = vector;
  a.gradients_stride = cell.steps * plane, a.gradients_step = plane;
  a.x0 = cell.x0, a.sums_stride = cell.steps * sums_step, a.dx0 = dx0.get(), a.dcontext = out.context;
  a.state_grad_stride = every_state ? (cell.steps + 1) * all : all;
  for (int step = cell.steps; step >= (out.x0 ? 0 : 1); --step) {
    a.step = step, a.start = step > last, a.gradients = gradients.get() + step * plane;
    a.d = step >= last ? (every_state ? grad + cell.steps * all : grad) : d.get();
    a.d_stride = step >= last ? a.state_grad_stride : all;
    a.dh = !a.start && (step > 1 || out.x0) ? d.get() : nullptr;
    a.state_grad = every_state && !a.start ? grad + step * all : nullptr;
    a.activations = activations + (step - 1) * plane, a.gradients_before = gradients.get() + (step - 1) * plane;
    a.sums = sums.get() + (step - 1) * sums_step;
    large ? launch_product<ProductKernel<M, G, LargeTile, large_stages, false>>(cell, a)
          : launch_product<ProductKernel<M, G, SmallTile, small_stages, false>>(cell, a);
  }
  if (out.context) {
    a.start = false, a.gradients = gradients.get();
    large ? launch_product<ProductKernel<M, G, LargeTile, large_stages, true>>(cell, a)
          : launch_product<ProductKernel<M, G, SmallTile, small_stages, true>>(cell, a);
  }
  if (out.x0) sum_tasks<T>(dx0.get(), out.x0, all, tasks, gpu);
  if (!out.weights()) return;
  sum_input_products<T>(cell, cell.weight.banks, gradients.get(), states.get(), out.shared_weight, out.private_weight);
  sum_biases<T>(cell, sums.get(), row_tiles, out);
}

}  // namespace

template <typename T>
void backward(const Cell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out) {
  const int64_t all = cell.tasks() * cell.states();
  const auto again = cell.gpu.template memory<T>(activations ? 0 : cell.steps * cell.gates * all);
  if (again) forward(cell, cell.gpu.template memory<T>(all).get(), false, again.get());
  with_kernels(cell, [&](auto math, auto vectors) {
    backward_by<decltype(math), decltype(vectors)::value>(cell, grad, every_state, again ? again.get() : activations, out);
  });
}

#define DCRNN_INSTANCE(T) template void backward(const Cell<T>&, const T*, bool, const T*, const GradientPointers<T>&)
DCRNN_FOR_EACH_TYPE(DCRNN_INSTANCE);

}  // namespace dcrnn_fast::cuda
