// Launches of the sums.
#include "sums.h"
#include "sums_kernels.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {

template <typename A>
cudaError_t sum_in_place(A* sums, int64_t groups, int64_t count, int64_t width, cudaStream_t stream) {
  const TileSumArguments<A> a{sums, groups, count, width};
  return launch(sum_over_tiles<A>, Grid{divide_up(groups * width, sum_threads)}, sum_threads, 0, stream, a);
}

template <typename T>
cudaError_t sum_tasks(const accumulator<T>* from, T* to, int64_t count, int tasks, cudaStream_t stream) {
  const TaskSumArguments<T> a{from, to, count, tasks};
  return launch(sum_over_tasks<T>, Grid{divide_up(count, sum_threads)}, sum_threads, 0, stream, a);
}

template cudaError_t sum_in_place<float>(float*, int64_t, int64_t, int64_t, cudaStream_t);
template cudaError_t sum_in_place<double>(double*, int64_t, int64_t, int64_t, cudaStream_t);
template cudaError_t sum_tasks<float>(const float*, float*, int64_t, int, cudaStream_t);
template cudaError_t sum_tasks<double>(const double*, double*, int64_t, int, cudaStream_t);
template cudaError_t sum_tasks<BFloat16>(const float*, BFloat16*, int64_t, int, cudaStream_t);
template cudaError_t sum_tasks<Half>(const float*, Half*, int64_t, int, cudaStream_t);

}  // namespace dcrnn_fast::cuda
