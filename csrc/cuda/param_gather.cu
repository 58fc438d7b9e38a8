// Launches of param_gather and of the sums into the two banks.
#include "inverse_index_kernels.h"
#include "param_gather_kernels.h"
#include "tiles.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Word>
cudaError_t gather_words(const BankIndex& bank, const void* shared, const void* own, void* out, int64_t row_bytes, const Device& device,
                         cudaStream_t stream) {
  const int64_t words = row_bytes / sizeof(Word), places = bank.tasks * bank.rows;
  int lanes = 0;
  while (lanes < 5 && (int64_t(1) << lanes) < words) ++lanes;
  const BankRows<Word> rows{static_cast<const Word*>(shared), static_cast<const Word*>(own), int(bank.num_shared), int(bank.num_private)};
  const GatherArguments<Word> a{rows, bank.index, static_cast<Word*>(out), places, words, int(bank.rows), lanes};
  constexpr int blocks_at_once = 6;  // as many as the registers allow
  const int64_t wanted = divide_up(places << lanes, gather_threads), persistent = int64_t(device.multiprocessors) * blocks_at_once;
  return launch(param_gather<Word>, Grid{wanted < persistent ? wanted : persistent}, gather_threads, 0, stream, a);
}

// The sum of gradients [T, parts, R / weight_steps, part]: one step, one copy.
template <typename From, typename To>
BankSum<From, To> bank_sum(const BankIndex& bank, const InverseIndex& inverse, const From* from, To* shared, To* own, int parts,
                           int64_t part, int weight_steps) {
  BankSum<From, To> sum{};
  sum.from = from, sum.inverse = inverse, sum.shared = shared, sum.own = own;
  sum.tasks = int(bank.tasks), sum.rows = int(bank.rows), sum.num_shared = int(bank.num_shared), sum.num_private = int(bank.num_private);
  sum.parts = parts, sum.part = part, sum.copies = 1, sum.step_rows = int(bank.rows / weight_steps);
  sum.row_stride = part, sum.part_stride = sum.step_rows * part, sum.task_stride = parts * sum.part_stride;
  return sum;
}

template <typename From, typename To>
cudaError_t sum_into_banks(const BankSum<From, To>& sum, cudaStream_t stream) {
  const int64_t bank_rows = sum.num_shared + int64_t(sum.tasks) * sum.num_private, size = sum.parts * sum.part;
  if (bank_rows == 0 || size == 0) return cudaSuccess;
  const Grid grid{bank_rows * divide_up(size, sum_block)};
  return launch(param_gather_sum<From, To>, grid, 32 * sum_warps, 0, stream, sum);
}

}  // namespace

cudaError_t gather(const BankIndex& bank, const void* shared, const void* own, void* out, int64_t row_bytes, int value_bytes,
                   const Device& device, cudaStream_t stream) {
  if (row_bytes == 0 || bank.tasks == 0 || bank.rows == 0) return cudaSuccess;
  const auto all = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(own) | reinterpret_cast<uintptr_t>(out) |
                   static_cast<uintptr_t>(row_bytes);
  if (all % 16 == 0) return gather_words<Word16>(bank, shared, own, out, row_bytes, device, stream);
  if (all % 8 == 0) return gather_words<uint64_t>(bank, shared, own, out, row_bytes, device, stream);
  if (all % 4 == 0) return gather_words<uint32_t>(bank, shared, own, out, row_bytes, device, stream);
  return value_bytes == 2 ? gather_words<uint16_t>(bank, shared, own, out, row_bytes, device, stream) : cudaErrorInvalidValue;
}

int64_t inverse_values(const BankIndex& bank) { return 2 * (bank.num_shared + bank.tasks * (bank.num_private + bank.rows)); }

InverseIndex inverse_in(void* memory, const BankIndex& bank) {
  PlaceRange* const ranges = static_cast<PlaceRange*>(memory);
  return {ranges, reinterpret_cast<uint32_t*>(ranges + bank.num_shared + bank.tasks * bank.num_private)};
}

cudaError_t invert(const BankIndex& bank, void* memory, cudaStream_t stream) {
  const int64_t blocks = divide_up(bank.num_shared, invert_rows) + bank.tasks * divide_up(bank.num_private, invert_rows);
  if (blocks == 0) return cudaSuccess;
  const InvertArguments a{bank.index,
                          inverse_in(memory, bank),
                          bank.tasks,
                          bank.rows,
                          static_cast<uint32_t>(bank.num_shared),
                          static_cast<uint32_t>(bank.num_private)};
  return launch(invert_index, Grid{blocks}, invert_threads, invert_shared_bytes, stream, a);
}

template <typename T>
cudaError_t sum_rows(const BankIndex& bank, const T* gradient, void* inverse, T* shared, T* own, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const cudaError_t error = invert(bank, inverse, stream);
  if (error != cudaSuccess) return error;
  return sum_into_banks(bank_sum(bank, inverse_in(inverse, bank), gradient, shared, own, 1, n, 1), stream);
}

template <typename T>
cudaError_t sum_products(const BankIndex& bank, const InverseIndex& inverse, int gates, int weight_steps, int groups, int64_t part,
                         const T* products, T* shared, T* own, cudaStream_t stream) {
  BankSum<T, T> sum = bank_sum(bank, inverse, products, shared, own, gates, part, weight_steps);
  sum.copies = groups / weight_steps, sum.step_stride = sum.copy_stride = bank.tasks * sum.task_stride;
  return sum_into_banks(sum, stream);
}

template <typename T>
cudaError_t sum_tiles(const BankIndex& bank, const InverseIndex& inverse, int gates, int weight_steps, int steps, int row_tiles,
                      const accumulator<T>* sums, T* shared, T* own, cudaStream_t stream) {
  BankSum<accumulator<T>, T> sum = bank_sum(bank, inverse, sums, shared, own, gates, 1, weight_steps);
  sum.step_stride = row_tiles * sum.task_stride, sum.task_stride = steps * sum.step_stride;
  return sum_into_banks(sum, stream);
}

#define DCRNN_INSTANCE(T)                                                                                                              \
  template cudaError_t sum_rows<T>(const BankIndex&, const T*, void*, T*, T*, int64_t, cudaStream_t);                                  \
  template cudaError_t sum_products<T>(const BankIndex&, const InverseIndex&, int, int, int, int64_t, const T*, T*, T*, cudaStream_t); \
  template cudaError_t sum_tiles<T>(const BankIndex&, const InverseIndex&, int, int, int, int, const accumulator<T>*, T*, T*, cudaStream_t)
DCRNN_INSTANCE(float);
DCRNN_INSTANCE(double);
DCRNN_INSTANCE(BFloat16);
DCRNN_INSTANCE(Half);

}  // namespace dcrnn_fast::cuda
