// Launches of the low-rank cell's backward.
#include "low_rank_backward_kernels.h"
#include "low_rank_launch.h"
#include "sums.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename T, typename Body>
auto with_backward_kernel(const LowRankProblem<T>& p, const Body& body) {
  return with_kernels(p, [&](auto math, auto vectors) {
    using M = decltype(math);
    return with_low_rank_kernel<LowRankBackward, M, decltype(vectors)::value, typename LowRankTiles<M>::Middle>(p, body);
  });
}

template <typename Kernel, typename T>
LowRankPlacement placement_of(const LowRankProblem<T>& p) {
  const typename Kernel::Sizes sizes(p.dim, p.columns, p.rank);
  return place_low_rank<Kernel>(p, sizes, Kernel::stages_of_step(sizes));
}

template <typename Kernel, typename T>
PackedWeights<typename Kernel::Base> packed_of(const LowRankProblem<T>& p, bool kept) {
  return {p, !kept, true};
}

}  // namespace

template <typename T>
int low_rank_row_tiles(const LowRankProblem<T>& p) {
  return with_backward_kernel(
      p, [&](auto* kernel) { return static_cast<int>(divide_up(p.batch, std::remove_pointer_t<decltype(kernel)>::Tile::rows)); });
}

template <typename T>
int64_t low_rank_backward_bytes(const LowRankProblem<T>& p, bool kept) {
  if (p.batch == 0 || p.tasks == 0) return 0;
  return with_backward_kernel(p, [&](auto* kernel) {
    using Kernel = std::remove_pointer_t<decltype(kernel)>;
    return packed_of<Kernel>(p, kept).bytes() + (placement_of<Kernel>(p).on_chip ? 0 : p.tasks * p.states() * int64_t(sizeof(T)));
  });
}

template <typename T>
cudaError_t low_rank_backward(const LowRankProblem<T>& p, const T* grad, bool every_state, T* activations, bool kept,
                              const LowRankWorkspace<T>& w, T* dx0, T* dcontext, cudaStream_t stream) {
  if (p.batch == 0 || p.tasks == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  const auto run = [&error](auto launched) {
    if (error == cudaSuccess) error = launched();
  };
  const int64_t all = p.states(), plane = p.batch * p.gates * p.rank, tiles = low_rank_row_tiles(p);
  with_backward_kernel(p, [&](auto* kernel) {
    using Kernel = std::remove_pointer_t<decltype(kernel)>;
    const PackedWeights<typename Kernel::Base> packed = packed_of<Kernel>(p, kept);
    run([&] { return packed.pack_into(w.scratch, stream); });
    const bool vector = in_vectors(p, p.x0, p.context, grad, w.states, w.gradients, w.dx0, w.dcontext);
    const bool rank_vector = ranks_in_vectors(p, activations, w.rank_gradients);
    if (!kept || p.steps > 1) {  // the states
      LowRankForwardArguments<T> a{};
      a.weights = packed.weights(w.scratch), a.biases = packed.biases(w.scratch);
      a.stages_a_step = packed.stages(), a.project_stage = packed.project_stage();
      a.steps = kept ? p.steps - 1 : p.steps, a.every_state = true, a.given = kept, a.ends_projected = !kept;
      a.next = w.states, a.next_stride = (p.steps - 1) * all, a.next_step = all;
      a.activations = activations, a.activations_stride = p.steps * plane, a.activations_step = plane;
      a.vector = vector, a.rank_vector = rank_vector;
      run([&] { return launch_states(p, Kernel::Tile::rows, a, stream); });
    }
    const LowRankPlacement placement = placement_of<Kernel>(p);
    LowRankBackwardArguments<T> a{};
    a.x0 = p.x0, a.grad = grad, a.activations = activations;
    a.weights = packed.weights(w.scratch), a.biases = packed.biases(w.scratch), a.stages_a_step = packed.stages();
    a.gradients = w.gradients, a.rank_gradients = w.rank_gradients;
    a.d = placement.on_chip ? nullptr : reinterpret_cast<T*>(static_cast<char*>(w.scratch) + packed.bytes());
    a.dx0 = w.dx0, a.dcontext = p.columns ? w.dcontext : nullptr, a.sums = w.sums;
    a.batch = p.batch, a.grad_stride = every_state ? (p.steps + 1) * all : all;
    a.dim = p.dim, a.columns = p.columns, a.rank = p.rank, a.steps = p.steps, a.weight_steps = p.weight_steps();
    a.every_state = every_state, a.on_chip = placement.on_chip, a.resident = placement.resident, a.depth = placement.depth;
    a.vector = vector, a.rank_vector = rank_vector;
    run([&] {
      return launch(low_rank_backward_steps<Kernel>, Grid{tiles, p.tasks}, Kernel::threads, static_cast<int>(placement.shared_bytes),
                    stream, a);
    });
    return 0;
  });
  run([&] {
    const int64_t groups = p.tasks * int64_t(p.weight_steps()), count = tiles * (p.steps / p.weight_steps());
    return sum_in_place(w.sums, groups, count, int64_t(p.gates) * p.dim, stream);
  });
  if (w.dx0) run([&] { return sum_tasks<T>(w.dx0, dx0, all, p.tasks, stream); });
  if (w.dcontext && p.columns) run([&] { return sum_tasks<T>(w.dcontext, dcontext, p.steps * p.batch * p.columns, p.tasks, stream); });
  return error;
}

#define DCRNN_INSTANCE(T)                                                                                                           \
  template int low_rank_row_tiles<T>(const LowRankProblem<T>&);                                                                     \
  template int64_t low_rank_backward_bytes<T>(const LowRankProblem<T>&, bool);                                                      \
  template cudaError_t low_rank_backward<T>(const LowRankProblem<T>&, const T*, bool, T*, bool, const LowRankWorkspace<T>&, T*, T*, \
                                            cudaStream_t)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
