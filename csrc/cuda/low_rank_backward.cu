// Launches of the low-rank cell's backward.
#include "low_rank_backward_kernels.h"
#include "low_rank_launch.h"
#include "weight_gradients.h"

namespace dcrnn_fast::cuda {
namespace {

// The gradients of the weights, from the gradients of their products with z and y: da|dq [T, L, B, G, D].
template <typename T>
void sum_rank_products(const LowRankCell<T>& cell, const T* gradients, const T* activations, T* shared, T* own) {
  const int64_t rank = cell.rank(), width = int64_t(cell.gates) * cell.dim, ranks = cell.gates * rank, rows = cell.steps * cell.batch;
  const auto products = cell.gpu.template memory<T>(int64_t(cell.weight_steps()) * cell.tasks() * width * rank);
  for (int gate = 0; gate < cell.gates; ++gate)
    multiply_rows<T>(cell, {gradients + gate * cell.dim, rows * width, width, cell.dim},
                     {activations + gate * rank, rows * ranks, ranks, cell.rank()}, products.get() + gate * cell.dim * rank, width * rank,
                     rank);
  sum_products<T>(cell, cell.weight.banks, products.get(), rank, shared, own);
}

template <typename Kernel, typename T>
void backward_by(const LowRankCell<T>& cell, const T* grad, bool every_state, const T* kept, const GradientPointers<T>& out) {
  using A = accumulator<T>;
  const Gpu& gpu = cell.gpu;
  const int64_t all = cell.states(), tasks = cell.tasks(), steps = cell.steps, row_tiles = divide_up(cell.batch, Kernel::Tile::rows);
  const int64_t row_sums = row_tiles * Kernel::Tile::warps_m;
  const auto again = gpu.memory<T>(kept ? 0 : tasks * steps * cell.ranks()), rank_gradients = gpu.memory<T>(tasks * steps * cell.ranks());
  const auto states = gpu.memory<T>(steps > 1 && (out.projections() || !kept) ? tasks * steps * all : 0);
  const auto gradients = gpu.memory<T>(tasks * steps * cell.gates * all);
  const auto dx0 = gpu.memory<A>(out.x0 ? tasks * all : 0);
  const auto dcontext = gpu.memory<A>(out.context ? tasks * steps * cell.batch * cell.columns : 0);
  const auto sums = gpu.memory<A>(tasks * steps * row_sums * cell.gates * cell.dim);
  const T* const activations = kept ? kept : again.get();
  if (!kept || states) states_again(cell, states.get(), const_cast<T*>(activations), kept != nullptr);

  const PackedWeights<typename Kernel::Base> packed(cell, false, true);
  LowRankBackwardArguments<T> a{};
  const int shared_bytes = fill<Kernel>(a, cell, packed);
  const auto d = gpu.memory<T>(a.on_chip ? 0 : tasks * all);
  a.grad = grad, a.activations = activations, a.d = d.get(), a.gradients = gradients.get(), a.rank_gradients = rank_gradients.get();
  a.dx0 = dx0.get(), a.dcontext = dcontext.get(), a.sums = sums.get();
  a.steps = cell.steps, a.every_state = every_state, a.grad_stride = every_state ? (steps + 1) * all : all;
  a.vector = in_vectors<T>({cell.dim, cell.columns}, cell.x0, grad), a.rank_vector = in_vectors<T>({cell.rank()}, activations);
  launch(low_rank_backward_steps<Kernel>, Grid{row_tiles, tasks}, Kernel::threads, shared_bytes, gpu.stream, a);

  if (out.x0) sum_tasks<T>(dx0.get(), out.x0, all, tasks, gpu);
  if (out.context) sum_tasks<T>(dcontext.get(), out.context, steps * cell.batch * cell.columns, tasks, gpu);
  if (out.weights()) {
    sum_rank_products(cell, gradients.get(), activations, out.shared_weight, out.private_weight);
    sum_biases<T>(cell, sums.get(), row_sums, out);
  }
  if (out.projections())
    sum_input_products<T>(cell, cell.projection.banks, rank_gradients.get(), states.get(), out.shared_projection, out.private_projection);
}

}  // namespace

template <typename T>
void backward(const LowRankCell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out) {
  with_low_rank_kernel<LowRankBackward, false>(
      cell, [&](auto* kernel) { backward_by<std::remove_pointer_t<decltype(kernel)>>(cell, grad, every_state, activations, out); });
}

#define DCRNN_INSTANCE(T) template void backward(const LowRankCell<T>&, const T*, bool, const T*, const GradientPointers<T>&)
DCRNN_FOR_EACH_TYPE(DCRNN_INSTANCE);

}  // namespace dcrnn_fast::cuda
