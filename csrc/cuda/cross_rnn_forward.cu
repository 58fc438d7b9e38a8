// Launches of cross_rnn's forward.
#include "cross_rnn_forward_kernels.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Kernel, typename T>
cudaError_t launch_forward(const Problem<T>& p, const ForwardArguments<T>& arguments, cudaStream_t stream) {
  const int64_t units = Kernel::all_steps ? 1 : Kernel::tiles(p.dim);
  const Grid grid{divide_up(p.batch, Kernel::Tile::rows) * units, p.tasks};
  return launch(cross_rnn_forward<Kernel>, grid, Kernel::threads, static_cast<int>(Kernel::shared_bytes(p.dim)), stream, arguments);
}

// Takes one launch for all steps where the states fit into shared memory and it is predicted to end sooner than launches of `Step`.
template <typename AllSteps, typename Step, typename T>
bool takes_all_steps(const Problem<T>& p) {
  const int64_t slices = stages_of<T>(static_cast<int>(p.columns)) + stages_of<T>(static_cast<int>(p.dim));
  if (AllSteps::shared_bytes(p.dim) > p.device.shared_memory || p.schedule == Schedule::step) return false;
  if (slices * AllSteps::tiles(p.dim) * p.steps > INT32_MAX) return false;  // the kernel counts them in 32 bits
  if (p.schedule == Schedule::all_steps) return true;
  const auto waves = [&](int64_t blocks) { return divide_up(blocks * p.tasks, p.device.multiprocessors); };
  return one_launch_is_shorter(slices, AllSteps::tiles(p.dim), waves(divide_up(p.batch, AllSteps::Tile::rows)),
                               waves(divide_up(p.batch, Step::Tile::rows) * Step::tiles(p.dim)));
}

}  // namespace

template <typename T>
int64_t forward_scratch(const Problem<T>& p, bool every_state) {
  return every_state || p.steps == 1 ? 0 : 2 * p.tasks * p.states();
}

template <typename T>
cudaError_t forward(const Problem<T>& p, T* out, bool every_state, T* activations, T* scratch, cudaStream_t stream) {
  if (p.batch == 0 || p.tasks == 0) return cudaSuccess;
  return with_kernels(p, [&](auto math, auto vectors) {
    using M = decltype(math);
    constexpr int G = decltype(vectors)::value;
    using Small = ForwardKernel<M, G, typename StepTiles<M>::Small, small_stages, false>;
    using Large = ForwardKernel<M, G, typename StepTiles<M>::Large, large_stages, false>;
    using AllSteps = ForwardKernel<M, G, typename StepTiles<M>::AllSteps, small_stages, true>;
    const int64_t all = p.states(), out_stride = every_state ? (p.steps + 1) * all : all;

    ForwardArguments<T> a{};
    a.x0 = p.x0, a.context = p.context, a.index = p.index;
    a.weight = {p.shared_weight, p.private_weight, p.num_shared, p.num_private};
    a.bias = {p.shared_bias, p.private_bias, p.num_shared, p.num_private};
    a.batch = p.batch, a.dim = p.dim, a.columns = p.columns, a.index_stride = p.rows;
    a.activations_step = G * all, a.activations_stride = p.steps * a.activations_step;
    a.every_state = every_state, a.next_step = all, a.start_stride = out_stride;
    a.step_rows = p.weight_steps() > 1 ? p.dim : 0;
    a.vector = in_vectors(p, p.x0, p.context, p.shared_weight, p.private_weight, out, activations, scratch);

    const bool large = takes_large<typename StepTiles<M>::Large>(p, p.dim);
    if (large ? takes_all_steps<AllSteps, Large>(p) : takes_all_steps<AllSteps, Small>(p)) {
      a.steps = p.steps, a.activations = activations, a.start = every_state ? out : nullptr;
      a.next = every_state ? out + all : out, a.next_stride = out_stride;
      return launch_forward<AllSteps>(p, a, stream);
    }
    a.steps = 1, a.state = p.x0, a.state_stride = 0;
    for (int step = 0; step < p.steps; ++step) {
      a.activations = activations ? activations + step * a.activations_step : nullptr;
      a.start = every_state && step == 0 ? out : nullptr;
      if (every_state)
        a.next = out + (step + 1) * all, a.next_stride = out_stride;
      else if (step == p.steps - 1)
        a.next = out, a.next_stride = all;
      else
        a.next = scratch + step % 2 * p.tasks * all, a.next_stride = all;
      const cudaError_t error = large ? launch_forward<Large>(p, a, stream) : launch_forward<Small>(p, a, stream);
      if (error != cudaSuccess) return error;
      a.state = a.next, a.state_stride = a.next_stride;
      a.index += a.step_rows;
      if (a.context) a.context += p.batch * p.columns;
    }
    return cudaSuccess;
  });
}

#define DCRNN_INSTANCE(T)                                       \
  template int64_t forward_scratch<T>(const Problem<T>&, bool); \
  template cudaError_t forward<T>(const Problem<T>&, T*, bool, T*, T*, cudaStream_t)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
