// The launch that packs the weights of the low-rank cell.
#include "low_rank_pack.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {

template <typename T>
cudaError_t pack(const PackArguments<T>& a, cudaStream_t stream) {
  const int64_t steps = int64_t(a.tasks) * a.weight_steps;
  int64_t items = steps * a.gates * a.padded_dim;
  for (int i = 0; i < a.count; ++i) {
    const int64_t of_matrix = steps * a.matrices[i].tiles * a.matrices[i].blocks * a.gates * a.columns * chunks;
    items = items < of_matrix ? of_matrix : items;
  }
  return launch(low_rank_pack<T>, Grid{divide_up(items, pack_threads), a.count + 1}, pack_threads, 0, stream, a);
}

template cudaError_t pack<float>(const PackArguments<float>&, cudaStream_t);
template cudaError_t pack<double>(const PackArguments<double>&, cudaStream_t);
template cudaError_t pack<BFloat16>(const PackArguments<BFloat16>&, cudaStream_t);
template cudaError_t pack<Half>(const PackArguments<Half>&, cudaStream_t);

}  // namespace dcrnn_fast::cuda
