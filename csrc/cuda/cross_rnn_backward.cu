// Launches of cross_rnn's backward.
#include "cross_rnn_backward_kernels.h"
#include "cross_rnn_states_kernels.h"
#include "sums.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Kernel, typename T>
cudaError_t launch_product(const Problem<T>& p, int64_t width, int64_t second, const ProductArguments<T>& arguments, cudaStream_t stream) {
  const Grid grid{divide_up(p.batch, Kernel::Tile::rows) * divide_up(width, Kernel::Tile::columns), second};
  return launch(cross_rnn_backward<Kernel>, grid, Kernel::threads, Kernel::shared_bytes(), stream, arguments);
}

template <typename T>
int tile_rows(const Problem<T>& p) {
  return with_kernels(p, [&](auto math, auto) {
    using All = ProductTiles<decltype(math)>;
    return takes_large<typename All::Large>(p, p.dim) ? All::Large::rows : All::Small::rows;
  });
}

}  // namespace

template <typename T>
int backward_row_tiles(const Problem<T>& p) {
  return static_cast<int>(divide_up(p.batch, tile_rows(p)));
}

template <typename T>
cudaError_t backward(const Problem<T>& p, const T* grad, bool every_state, const T* activations, const Workspace<T>& w, T* dx0, T* dcontext,
                     cudaStream_t stream) {
  if (p.batch == 0 || p.tasks == 0) return cudaSuccess;
  return with_kernels(p, [&](auto math, auto vectors) {
    using M = decltype(math);
    constexpr int G = decltype(vectors)::value;
    using SmallTile = typename ProductTiles<M>::Small;
    using LargeTile = typename ProductTiles<M>::Large;
    const int64_t all = p.states(), plane = G * all, sums_step = backward_row_tiles(p) * int64_t(G) * p.dim;
    const bool large = takes_large<LargeTile>(p, p.dim);
    const bool vector =
        in_vectors(p, p.x0, p.context, p.shared_weight, p.private_weight, grad, activations, w.states, w.gradients, w.d, w.dx0, dcontext);
    const int64_t elements = divide_up(p.batch * divide_up(p.dim, element_units), element_threads);
    cudaError_t error = cudaSuccess;
    const auto run = [&error](auto launched) {
      if (error == cudaSuccess) error = launched();
    };

    if (p.steps > 1)
      run([&] {
        const StatesArguments<T> a{p.x0, activations, w.states, p.batch, p.dim, p.steps, vector};
        return launch(cross_rnn_states<G, T>, Grid{elements, p.tasks}, element_threads, 0, stream, a);
      });
    const auto elements_of = [&](int step) {
      ElementArguments<T> a{};
      a.x0 = p.x0, a.activations = activations + step * plane;
      a.gradients = w.gradients + step * plane, a.dx0 = dx0 ? w.dx0 : nullptr, a.sums = w.sums + step * sums_step;
      a.batch = p.batch, a.dim = p.dim, a.tile_rows = tile_rows(p), a.vector = vector;
      a.activations_stride = a.gradients_stride = p.steps * plane, a.sums_stride = p.steps * sums_step;
      return a;
    };
    const int64_t grad_stride = every_state ? (p.steps + 1) * all : all;
    const T* const last_grad = every_state ? grad + p.steps * all : grad;
    run([&] {
      const StartArguments<T> a{elements_of(p.steps - 1), last_grad, grad_stride};
      const Grid grid{backward_row_tiles(p) * divide_up(p.dim, 32 * start_units), p.tasks};
      return launch(cross_rnn_backward_start<G, T>, grid, 32 * start_warps, start_shared_bytes<T>(G), stream, a);
    });

    ProductArguments<T> a{};
    a.weight = {p.shared_weight, p.private_weight, p.num_shared, p.num_private};
    a.batch = p.batch, a.dim = p.dim, a.columns = p.columns, a.tasks = p.tasks;
    a.gradients_stride = p.steps * plane, a.gradients_step = plane, a.index_stride = p.rows;
    a.step_rows = p.weight_steps() > 1 ? p.dim : 0;
    a.vector = vector;
    a.dx0 = w.dx0, a.state_grad_stride = grad_stride, a.dcontext = dcontext;
    for (int step = p.steps - 1; step >= 0; --step) {
      a.first = step == 0;
      if (a.first && !dx0) break;
      a.gradients = w.gradients + step * plane, a.index = p.index + step * a.step_rows;
      a.d = step == p.steps - 1 ? last_grad : w.d, a.d_stride = step == p.steps - 1 ? grad_stride : all;
      a.dh = step > 1 || dx0 ? w.d : nullptr;
      a.state_grad = every_state ? grad + step * all : nullptr;
      if (!a.first) a.before = elements_of(step - 1);
      run([&] {
        return large ? launch_product<ProductKernel<M, G, LargeTile, large_stages, false>>(p, p.dim, p.tasks, a, stream)
                     : launch_product<ProductKernel<M, G, SmallTile, small_stages, false>>(p, p.dim, p.tasks, a, stream);
      });
    }
    if (dcontext && p.columns) {
      a.gradients = w.gradients, a.index = p.index;
      run([&] {
        return large ? launch_product<ProductKernel<M, G, LargeTile, large_stages, true>>(p, p.columns, p.steps, a, stream)
                     : launch_product<ProductKernel<M, G, SmallTile, small_stages, true>>(p, p.columns, p.steps, a, stream);
      });
    }
    run([&] {
      const int64_t groups = p.tasks * int64_t(p.weight_steps()), count = backward_row_tiles(p) * int64_t(p.steps / p.weight_steps());
      return sum_in_place(w.sums, groups, count, int64_t(G) * p.dim, stream);
    });
    if (dx0) run([&] { return sum_tasks<T>(w.dx0, dx0, all, p.tasks, stream); });
    return error;
  });
}

#define DCRNN_INSTANCE(T)                                \
  template int backward_row_tiles<T>(const Problem<T>&); \
  template cudaError_t backward<T>(const Problem<T>&, const T*, bool, const T*, const Workspace<T>&, T*, T*, cudaStream_t)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
