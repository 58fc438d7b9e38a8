// Launches of param_gather and of the sums into the banks.
#include "param_gather.h"

#include "gather.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Word>
cudaError_t gather_words(const Banks& banks, const void* shared, const void* own, void* out, int64_t row_bytes, const Device& device,
                         cudaStream_t stream) {
  const int64_t words = row_bytes / sizeof(Word), places = int64_t(banks.tasks) * banks.rows;
  int lanes = 0;
  while (lanes < 5 && (int64_t(1) << lanes) < words) ++lanes;
  const GatherArguments<Word> a{{static_cast<const Word*>(shared), static_cast<const Word*>(own), banks.num_shared, banks.num_private},
                                banks.index, static_cast<Word*>(out), places, words, banks.rows, lanes};
  constexpr int blocks_at_once = 6;  // that the registers leave room for
  const int64_t wanted = divide_up(places << lanes, gather_threads), persistent = int64_t(device.multiprocessors) * blocks_at_once;
  return launch(param_gather<Word>, dim3(wanted < persistent ? wanted : persistent), gather_threads, 0, stream, a);
}

template <typename From, typename To>
cudaError_t launch_sum(const SumArguments<From, To>& a, cudaStream_t stream) {
  const int64_t bank_rows = a.num_shared + int64_t(a.tasks) * a.num_private, size = a.parts * a.part;
  if (bank_rows == 0 || size == 0) return cudaSuccess;
  const dim3 grid(bank_rows * divide_up(size, sum_block));
  return launch(param_gather_sum<From, To>, grid, 32 * sum_warps, 0, stream, a);
}

}  // namespace

cudaError_t gather(const Banks& banks, const void* shared, const void* own, void* out, int64_t row_bytes, int value_bytes, const Device& device,
                   cudaStream_t stream) {
  if (row_bytes == 0 || banks.tasks == 0 || banks.rows == 0) return cudaSuccess;
  const auto all = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(own) | reinterpret_cast<uintptr_t>(out) |
                   static_cast<uintptr_t>(row_bytes);
  if (all % 16 == 0) return gather_words<Word16>(banks, shared, own, out, row_bytes, device, stream);
  if (all % 8 == 0) return gather_words<uint64_t>(banks, shared, own, out, row_bytes, device, stream);
  if (all % 4 == 0) return gather_words<uint32_t>(banks, shared, own, out, row_bytes, device, stream);
  return value_bytes == 2 ? gather_words<uint16_t>(banks, shared, own, out, row_bytes, device, stream) : cudaErrorInvalidValue;
}

template <typename T>
cudaError_t sum_rows(const Banks& banks, const T* gradient, T* shared, T* own, int64_t n, cudaStream_t stream) {
  SumArguments<T, T> a{};
  a.from = gradient, a.index = banks.index, a.shared = shared, a.own = own;
  a.tasks = banks.tasks, a.rows = banks.rows, a.num_shared = banks.num_shared, a.num_private = banks.num_private;
  a.parts = 1, a.part = n, a.copies = 1, a.step_rows = banks.rows > 0 ? banks.rows : 1;
  a.row_stride = n, a.task_stride = banks.rows * n;
  return launch_sum(a, stream);
}

namespace {

template <typename From, typename T>
SumArguments<From, T> bank_sums(const Problem<T>& p, const From* from, T* shared, T* own) {
  SumArguments<From, T> a{};
  a.from = from, a.index = p.index, a.shared = shared, a.own = own;
  a.tasks = p.tasks, a.rows = p.rows, a.num_shared = p.num_shared, a.num_private = p.num_private;
  a.parts = p.gates, a.step_rows = p.dim;
  return a;
}

}  // namespace

template <typename T>
cudaError_t sum_weights(const Problem<T>& p, const T* products, T* shared, T* own, cudaStream_t stream) {
  SumArguments<T, T> a = bank_sums(p, products, shared, own);
  a.part = p.columns + p.dim, a.row_stride = a.part, a.part_stride = p.dim * a.part, a.task_stride = p.gates * a.part_stride;
  const int64_t group = p.tasks * a.task_stride;
  if (p.weight_steps() > 1)
    a.step_stride = group, a.copies = 1;
  else
    a.copy_stride = group, a.copies = step_groups(p);
  return launch_sum(a, stream);
}

template <typename T>
cudaError_t sum_biases(const Problem<T>& p, const accumulator<T>* sums, T* shared, T* own, cudaStream_t stream) {
  SumArguments<accumulator<T>, T> a = bank_sums(p, sums, shared, own);
  a.part = 1, a.row_stride = 1, a.part_stride = p.dim, a.copies = 1;
  a.step_stride = backward_row_tiles(p) * int64_t(p.gates) * p.dim, a.task_stride = p.steps * a.step_stride;
  return launch_sum(a, stream);
}

#define DCRNN_INSTANCE(T)                                                                           \
  template cudaError_t sum_rows<T>(const Banks&, const T*, T*, T*, int64_t, cudaStream_t);          \
  template cudaError_t sum_weights<T>(const Problem<T>&, const T*, T*, T*, cudaStream_t);           \
  template cudaError_t sum_biases<T>(const Problem<T>&, const accumulator<T>*, T*, T*, cudaStream_t)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
