// Launches of cross_rnn's forward.
#include "cross_rnn_forward_kernels.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Kernel, typename T>
void launch_forward(const Cell<T>& cell, const ForwardArguments<T>& arguments) {
  const int64_t units = Kernel::all_steps ? 1 : Kernel::tiles(cell.dim);
  const Grid grid{divide_up(cell.batch, Kernel::Tile::rows) * units, cell.tasks()};
  launch(cross_rnn_forward<Kernel>, grid, Kernel::threads, static_cast<int>(Kernel::shared_bytes(cell.dim)), cell.gpu.stream, arguments);
}

// Takes one launch for all steps where the states fit into shared memory and it is predicted to end sooner than launches of `Step`. Both do
// slices of products one after another: a step in one launch takes the slices of every tile of units, a launch those of one tile in each of
// its waves over the multiprocessors, and some time to start and to end. `launch_slices` is that time in slices: nothing was measured.
inline constexpr int64_t launch_slices = 12;

template <typename AllSteps, typename Step, typename T>
bool takes_all_steps(const Cell<T>& cell) {
  const int64_t slices = stages_of<T>(cell.columns) + stages_of<T>(cell.dim);
  if (AllSteps::shared_bytes(cell.dim) > cell.gpu.shared_memory || cell.schedule == Schedule::step) return false;
  if (slices * AllSteps::tiles(cell.dim) * cell.steps > INT32_MAX) return false;  // the kernel counts them in 32 bits
  if (cell.schedule == Schedule::all_steps) return true;
  const auto waves = [&](int64_t blocks) { return divide_up(blocks * cell.tasks(), cell.gpu.multiprocessors); };
  const int64_t waves_of_all = waves(divide_up(cell.batch, AllSteps::Tile::rows));
  const int64_t waves_of_step = waves(divide_up(cell.batch, Step::Tile::rows) * Step::tiles(cell.dim));
  return waves_of_all * AllSteps::tiles(cell.dim) * slices <= waves_of_step * slices + launch_slices;
}

}  // namespace

template <typename T>
void forward(const Cell<T>& cell, T* out, bool every_state, T* activations) {
  if (cell.is_empty()) return;
  with_kernels(cell, [&](auto math, auto vectors) {
    using M = decltype(math);
    constexpr int G = decltype(vectors)::value;
    using Small = ForwardKernel<M, G, typename StepTiles<M>::Small, small_stages, false>;
    using Large = ForwardKernel<M, G, typename StepTiles<M>::Large, large_stages, false>;
    using AllSteps = ForwardKernel<M, G, typename StepTiles<M>::AllSteps, small_stages, true>;
    const int64_t all = cell.states(), out_stride = every_state ? (cell.steps + 1) * all : all;

    ForwardArguments<T> a{};
    a.x0 = cell.x0, a.context = cell.context, a.weight = cell.weight, a.bias = cell.bias;
    a.batch = cell.batch, a.dim = cell.dim, a.columns = cell.columns;
    a.activations_step = G * all, a.activations_stride = cell.steps * a.activations_step;
    a.every_state = every_state, a.next_step = all, a.start_stride = out_stride;
    a.vector = in_vectors<T>({cell.dim, cell.columns}, cell.x0, cell.context, cell.weight.shared, cell.weight.own, out, activations);

    const bool large = takes_large<typename StepTiles<M>::Large>(cell, cell.dim);
    if (large ? takes_all_steps<AllSteps, Large>(cell) : takes_all_steps<AllSteps, Small>(cell)) {
      a.steps = cell.steps, a.activations = activations, a.start = every_state ? out : nullptr;
      a.next = every_state ? out + all : out, a.next_stride = out_stride;
      return launch_forward<AllSteps>(cell, a);
    }
    const auto between = cell.gpu.template memory<T>(every_state || cell.steps == 1 ? 0 : 2 * cell.tasks() * all);
    a.steps = 1, a.state = cell.x0, a.state_stride = 0;
    for (int step = 0; step < cell.steps; ++step) {
      const bool kept = every_state || step == cell.steps - 1;
      a.first_step = step, a.activations = activations ? activations + step * a.activations_step : nullptr;
      a.start = every_state && step == 0 ? out : nullptr;
      a.next = every_state ? out + (step + 1) * all : kept ? out : between.get() + step % 2 * cell.tasks() * all;
      a.next_stride = kept ? out_stride : all;
      large ? launch_forward<Large>(cell, a) : launch_forward<Small>(cell, a);
      a.state = a.next, a.state_stride = a.next_stride;
      if (a.context) a.context += cell.batch * cell.columns;
    }
  });
}

#define DCRNN_INSTANCE(T) template void forward(const Cell<T>&, T*, bool, T*)
DCRNN_FOR_EACH_TYPE(DCRNN_INSTANCE);

}  // namespace dcrnn_fast::cuda
