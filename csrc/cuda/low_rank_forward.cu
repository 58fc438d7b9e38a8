// Launches of the low-rank cell's forward.
#include "low_rank_launch.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename T, typename Body>
auto with_forward_kernel(const LowRankProblem<T>& p, const Body& body) {
  return with_kernels(p, [&](auto math, auto vectors) {
    using M = decltype(math);
    return with_low_rank_kernel<LowRankForward, M, decltype(vectors)::value, typename LowRankTiles<M>::Large>(p, body);
  });
}

// Fills in the problem and how the operands are kept, and launches.
template <typename Kernel, typename T>
cudaError_t launch_forward(const LowRankProblem<T>& p, LowRankForwardArguments<T> a, cudaStream_t stream) {
  const typename Kernel::Sizes sizes(p.dim, p.columns, p.rank);
  const LowRankPlacement placement = place_low_rank<Kernel>(p, sizes, (a.given ? 0 : sizes.project()) + sizes.units());
  a.x0 = p.x0, a.context = p.context;
  a.batch = p.batch, a.dim = p.dim, a.columns = p.columns, a.rank = p.rank, a.weight_steps = p.weight_steps();
  a.on_chip = placement.on_chip, a.resident = placement.resident, a.depth = placement.depth;
  const Grid grid{divide_up(p.batch, Kernel::Tile::rows), p.tasks};
  return launch(low_rank_forward_steps<Kernel>, grid, Kernel::threads, static_cast<int>(placement.shared_bytes), stream, a);
}

// Memory for z and y of a step, where they have no place on the chip and nobody keeps them.
template <typename Kernel, typename T>
int64_t rank_values(const LowRankProblem<T>& p, bool keeps) {
  const typename Kernel::Sizes sizes(p.dim, p.columns, p.rank);
  return keeps || place_low_rank<Kernel>(p, sizes, sizes.project() + sizes.units()).on_chip ? 0 : p.tasks * p.batch * p.gates * p.rank;
}

}  // namespace

template <typename T>
int64_t low_rank_forward_bytes(const LowRankProblem<T>& p, bool keeps) {
  if (p.batch == 0 || p.tasks == 0) return 0;
  return with_forward_kernel(p, [&](auto* kernel) {
    using Kernel = std::remove_pointer_t<decltype(kernel)>;
    return PackedWeights<typename Kernel::Base>(p, true, false).bytes() + rank_values<Kernel>(p, keeps) * int64_t(sizeof(T));
  });
}

template <typename T>
cudaError_t low_rank_forward(const LowRankProblem<T>& p, T* out, bool every_state, T* activations, void* scratch, cudaStream_t stream) {
  if (p.batch == 0 || p.tasks == 0) return cudaSuccess;
  return with_forward_kernel(p, [&](auto* kernel) {
    using Kernel = std::remove_pointer_t<decltype(kernel)>;
    const PackedWeights<typename Kernel::Base> packed(p, true, false);
    const cudaError_t error = packed.pack_into(scratch, stream);
    if (error != cudaSuccess) return error;
    const int64_t all = p.states(), plane = p.batch * p.gates * p.rank;
    LowRankForwardArguments<T> a{};
    a.weights = packed.weights(scratch), a.biases = packed.biases(scratch);
    a.stages_a_step = packed.stages(), a.project_stage = packed.project_stage();
    a.steps = p.steps, a.every_state = every_state;
    a.start = every_state ? out : nullptr, a.next = every_state ? out + all : out;
    a.next_stride = a.start_stride = every_state ? (p.steps + 1) * all : all, a.next_step = all;
    a.activations = activations, a.activations_stride = p.steps * plane, a.activations_step = plane;
    if (!activations && rank_values<Kernel>(p, false)) {
      a.activations = reinterpret_cast<T*>(static_cast<char*>(scratch) + packed.bytes());
      a.activations_stride = plane, a.activations_step = 0;
    }
    a.vector = in_vectors(p, p.x0, p.context, out), a.rank_vector = ranks_in_vectors(p, a.activations);
    return launch_forward<Kernel>(p, a, stream);
  });
}

template <typename T>
cudaError_t launch_states(const LowRankProblem<T>& p, int tile_rows, const LowRankForwardArguments<T>& a, cudaStream_t stream) {
  return with_kernels(p, [&](auto math, auto vectors) {
    using All = LowRankTiles<decltype(math)>;
    constexpr int G = decltype(vectors)::value;
    if (tile_rows == All::Small::rows)
      return launch_forward<LowRankKernel<LowRankForward, decltype(math), G, typename All::Small>>(p, a, stream);
    return launch_forward<LowRankKernel<LowRankForward, decltype(math), G, typename All::Middle>>(p, a, stream);
  });
}

#define DCRNN_INSTANCE(T)                                                                                \
  template int64_t low_rank_forward_bytes<T>(const LowRankProblem<T>&, bool);                            \
  template cudaError_t low_rank_forward<T>(const LowRankProblem<T>&, T*, bool, T*, void*, cudaStream_t); \
  template cudaError_t launch_states<T>(const LowRankProblem<T>&, int, const LowRankForwardArguments<T>&, cudaStream_t)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
