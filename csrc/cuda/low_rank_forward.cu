// Launches of the low-rank cell's forward.
#include "low_rank_launch.h"

namespace dcrnn_fast::cuda {
namespace {

// Fills in the inputs, and how the operands are kept.
template <typename Kernel, typename T>
void launch_forward(const LowRankCell<T>& cell, LowRankForwardArguments<T> a) {
  const typename Kernel::Sizes sizes(cell.dim, cell.columns, cell.rank());
  const LowRankPlacement placement = place_low_rank<Kernel>(cell, sizes, (a.given ? 0 : sizes.project()) + sizes.units());
  a.x0 = cell.x0, a.context = cell.context;
  a.batch = cell.batch, a.dim = cell.dim, a.columns = cell.columns, a.rank = cell.rank(), a.weight_steps = cell.weight_steps();
  a.on_chip = placement.on_chip, a.resident = placement.resident, a.depth = placement.depth;
  a.activations_stride = cell.steps * cell.ranks(), a.activations_step = cell.ranks();
  std::shared_ptr<T> of_step;  // z and y, where they have no place on the chip and nobody keeps them
  if (!a.activations && !placement.on_chip) {
    of_step = cell.gpu.template memory<T>(cell.tasks() * cell.ranks());
    a.activations = of_step.get(), a.activations_stride = cell.ranks(), a.activations_step = 0;
  }
  a.vector = in_vectors(cell, cell.x0, cell.context, a.next), a.rank_vector = ranks_in_vectors(cell, a.activations);
  const Grid grid{divide_up(cell.batch, Kernel::Tile::rows), cell.tasks()};
  launch(low_rank_forward_steps<Kernel>, grid, Kernel::threads, static_cast<int>(placement.shared_bytes), cell.gpu.stream, a);
}

}  // namespace

template <typename T>
void forward(const LowRankCell<T>& cell, T* out, bool every_state, T* activations) {
  if (cell.is_empty()) return;
  with_low_rank_kernel<LowRankForward, true>(cell, [&](auto* kernel) {
    using Kernel = std::remove_pointer_t<decltype(kernel)>;
    const PackedWeights<typename Kernel::Base> packed(cell, true, false);
    const int64_t all = cell.states();
    LowRankForwardArguments<T> a{};
    packed.fill(a), a.project_stage = packed.project_stage;
    a.steps = cell.steps, a.every_state = every_state, a.activations = activations;
    a.start = every_state ? out : nullptr, a.next = every_state ? out + all : out;
    a.next_stride = a.start_stride = every_state ? (cell.steps + 1) * all : all, a.next_step = all;
    launch_forward<Kernel>(cell, a);
  });
}

template <typename T>
void launch_states(const LowRankCell<T>& cell, int tile_rows, const LowRankForwardArguments<T>& a) {
  with_kernels(cell, [&](auto math, auto vectors) {
    using All = LowRankTiles<decltype(math)>;
    constexpr int G = decltype(vectors)::value;
    using Small = LowRankKernel<LowRankForward, decltype(math), G, typename All::Small>;
    using Middle = LowRankKernel<LowRankForward, decltype(math), G, typename All::Middle>;
    tile_rows == All::Small::rows ? launch_forward<Small>(cell, a) : launch_forward<Middle>(cell, a);
  });
}

#define DCRNN_INSTANCE(T)                                     \
  template void forward(const LowRankCell<T>&, T*, bool, T*); \
  template void launch_states(const LowRankCell<T>&, int, const LowRankForwardArguments<T>&)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
