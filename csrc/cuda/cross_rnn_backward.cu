// Launches of cross_rnn's backward.
#include "cross_rnn_backward_kernels.h"
#include "cross_rnn_states_kernels.h"
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

template <typename T>
std::shared_ptr<T> activations_again(const Cell<T>& cell) {
  const auto out = cell.gpu.template memory<T>(cell.tasks() * cell.states());
  const auto activations = cell.gpu.template memory<T>(int64_t(cell.tasks()) * cell.steps * cell.gates * cell.states());
  forward(cell, out.get(), false, activations.get());
  return activations;
}

// With M the kind of mathematics, and G vectors a unit.
template <typename M, int G, typename T = typename M::Value>
void backward_by(const Cell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out) {
  using A = accumulator<T>;
  using SmallTile = typename ProductTiles<M>::Small;
  using LargeTile = typename ProductTiles<M>::Large;
  const bool large = takes_large<LargeTile>(cell, cell.dim);
  const int tile_rows = large ? LargeTile::rows : SmallTile::rows, last = cell.steps - 1;
  const int64_t row_tiles = divide_up(cell.batch, tile_rows), tasks = cell.tasks();
  const int64_t all = cell.states(), plane = G * all, sums_step = row_tiles * G * cell.dim;
  const auto states = cell.gpu.template memory<T>(out.weights && last ? tasks * cell.steps * all : 0);
  const auto gradients = cell.gpu.template memory<T>(tasks * cell.steps * plane),
             d_memory = cell.gpu.template memory<T>(last ? tasks * all : 0);
  const auto dx0 = cell.gpu.template memory<A>(out.x0 ? tasks * all : 0),
             sums = cell.gpu.template memory<A>(tasks * cell.steps * sums_step);
  const bool vector = in_vectors(cell, cell.x0, cell.context, cell.weight.shared, cell.weight.own, grad, activations, out.context);

  if (states) {
    const Grid grid{divide_up(cell.batch * divide_up(cell.dim, element_units), element_threads), tasks};
    launch(cross_rnn_states<G, T>, grid, element_threads, 0, cell.gpu.stream,
           {cell.x0, activations, states.get(), cell.batch, cell.dim, cell.steps, vector});
  }
  const auto elements_of = [&](int step) {
    return ElementArguments<T>{.x0 = cell.x0,
                               .activations = activations + step * plane,
                               .gradients = gradients.get() + step * plane,
                               .dx0 = dx0.get(),
                               .sums = sums.get() + step * sums_step,
                               .batch = cell.batch,
                               .activations_stride = cell.steps * plane,
                               .gradients_stride = cell.steps * plane,
                               .sums_stride = cell.steps * sums_step,
                               .dim = cell.dim,
                               .tile_rows = tile_rows,
                               .vector = vector};
  };
  const int64_t grad_stride = every_state ? (cell.steps + 1) * all : all;
  const T* const last_grad = every_state ? grad + cell.steps * all : grad;
  launch(cross_rnn_backward_start<G, T>, Grid{row_tiles * divide_up(cell.dim, 32 * start_units), tasks}, 32 * start_warps,
         start_shared_bytes<T>(G), cell.gpu.stream, {elements_of(last), last_grad, grad_stride});

  ProductArguments<T> a{};
  a.weight = cell.weight, a.batch = cell.batch, a.dim = cell.dim, a.columns = cell.columns, a.vector = vector;
  a.gradients_stride = cell.steps * plane, a.gradients_step = plane;
  a.dx0 = dx0.get(), a.state_grad_stride = grad_stride, a.dcontext = out.context;
  for (int step = last; step >= (out.x0 ? 0 : 1); --step) {
    a.step = step, a.gradients = gradients.get() + step * plane;
    a.d = step == last ? last_grad : d_memory.get(), a.d_stride = step == last ? grad_stride : all;
    a.dh = step > 1 || out.x0 ? d_memory.get() : nullptr;
    a.state_grad = every_state ? grad + step * all : nullptr;
    if (step > 0) a.before = elements_of(step - 1);
    large ? launch_product<ProductKernel<M, G, LargeTile, large_stages, false>>(cell, a)
          : launch_product<ProductKernel<M, G, SmallTile, small_stages, false>>(cell, a);
  }
  if (out.context) {
    a.gradients = gradients.get();
    large ? launch_product<ProductKernel<M, G, LargeTile, large_stages, true>>(cell, a)
          : launch_product<ProductKernel<M, G, SmallTile, small_stages, true>>(cell, a);
  }
  if (out.x0) sum_tasks<T>(dx0.get(), out.x0, all, tasks, cell.gpu);
  if (!out.weights) return;
  sum_input_products<T>(cell, cell.weight.banks, gradients.get(), states.get(), out.shared_weight, out.private_weight);
  sum_biases<T>(cell, sums.get(), row_tiles, out);
}

}  // namespace

template <typename T>
void backward(const Cell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out) {
  const auto again = activations ? nullptr : activations_again(cell);
  with_kernels(cell, [&](auto math, auto vectors) {
    backward_by<decltype(math), decltype(vectors)::value>(cell, grad, every_state, again ? again.get() : activations, out);
  });
}

template void backward(const Cell<float>&, const float*, bool, const float*, const GradientPointers<float>&);
template void backward(const Cell<double>&, const double*, bool, const double*, const GradientPointers<double>&);
template void backward(const Cell<BFloat16>&, const BFloat16*, bool, const BFloat16*, const GradientPointers<BFloat16>&);
template void backward(const Cell<Half>&, const Half*, bool, const Half*, const GradientPointers<Half>&);

}  // namespace dcrnn_fast::cuda
