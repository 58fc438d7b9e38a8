// Launches of the low-rank cell's forward.
#include "low_rank_forward_kernels.h"
#include "low_rank_launch.h"

namespace dcrnn_fast::cuda {
namespace {

// Fills in the call, and what the kernel's instance decides.
template <typename T>
void launch_forward(const LowRankCell<T>& cell, LowRankForwardArguments<T> a) {
  with_low_rank_kernel<LowRankForward, true>(cell, [&](auto* kernel) {
    using Kernel = std::remove_pointer_t<decltype(kernel)>;
    const PackedWeights<typename Kernel::Base> packed(cell, !a.given, false);
    const int shared_bytes = fill<Kernel>(a, cell, packed);
    a.context = cell.context, a.next_step = cell.states();
    a.activations_stride = cell.steps * cell.ranks(), a.activations_step = cell.ranks();
    std::shared_ptr<T> of_step;  // z and y, where they have no place on the chip and nobody keeps them
    if (!a.activations && !a.on_chip) {
      of_step = cell.gpu.template memory<T>(cell.tasks() * cell.ranks());
      a.activations = of_step.get(), a.activations_stride = cell.ranks(), a.activations_step = 0;
    }
    a.vector = in_vectors<T>({cell.dim, cell.columns}, cell.x0, cell.context, a.next),
    a.rank_vector = in_vectors<T>({cell.rank()}, a.activations);
    const Grid grid{divide_up(cell.batch, Kernel::Tile::rows), cell.tasks()};
    launch(low_rank_forward_steps<Kernel>, grid, Kernel::threads, shared_bytes, cell.gpu.stream, a);
  });
}

}  // namespace

template <typename T>
void forward(const LowRankCell<T>& cell, T* out, bool every_state, T* activations) {
  if (cell.is_empty()) return;
  LowRankForwardArguments<T> a{};
  a.steps = cell.steps, a.every_state = every_state, a.activations = activations;
  a.start = every_state ? out : nullptr, a.next = every_state ? out + cell.states() : out;
  a.next_stride = a.start_stride = (every_state ? cell.steps + 1 : 1) * cell.states();
  launch_forward(cell, a);
}

template <typename T>
void states_again(const LowRankCell<T>& cell, T* states, T* activations, bool given) {
  LowRankForwardArguments<T> a{};
  a.steps = given ? cell.steps - 1 : cell.steps, a.every_state = true, a.given = given, a.ends_projected = !given;
  a.activations = activations, a.start = states, a.next = states ? states + cell.states() : nullptr;
  a.next_stride = a.start_stride = cell.steps * cell.states();
  launch_forward(cell, a);
}

#define DCRNN_INSTANCE(T)                                     \
  template void forward(const LowRankCell<T>&, T*, bool, T*); \
  template void states_again(const LowRankCell<T>&, T*, T*, bool)
DCRNN_FOR_EACH_TYPE(DCRNN_INSTANCE);

}  // namespace dcrnn_fast::cuda
