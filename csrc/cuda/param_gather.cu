// Launches of param_gather and of its backward.
#include "param_gather_kernels.h"

namespace dcrnn_fast::cuda {
namespace {

template <typename Word>
void gather_words(const RowIndex& index, const void* shared, const void* own, void* out, int64_t row_bytes, const Gpu& gpu) {
  const int64_t words = row_bytes / sizeof(Word);
  int lanes = 0;
  while (lanes < 5 && (int64_t(1) << lanes) < words) ++lanes;
  const BankRows<Word> bank{index.banks, static_cast<const Word*>(shared), static_cast<const Word*>(own)};
  constexpr int blocks_at_once = 6;  // as many as the registers allow
  const int64_t wanted = divide_up((index.banks.tasks * index.rows) << lanes, gather_threads);
  const Grid grid{std::min(wanted, int64_t(gpu.multiprocessors) * blocks_at_once)};
  launch(param_gather<Word>, grid, gather_threads, 0, gpu.stream, {bank, index.values, static_cast<Word*>(out), index.rows, words, lanes});
}

}  // namespace

void gather(const RowIndex& index, const void* shared, const void* own, void* out, int64_t row_bytes, const Gpu& gpu) {
  if (row_bytes == 0 || index.banks.tasks == 0 || index.rows == 0) return;
  const auto all = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(own) | reinterpret_cast<uintptr_t>(out) | row_bytes;
  if (all % 16 == 0) return gather_words<Pack<uint32_t, 4>>(index, shared, own, out, row_bytes, gpu);
  if (all % 8 == 0) return gather_words<uint64_t>(index, shared, own, out, row_bytes, gpu);
  if (all % 4 == 0) return gather_words<uint32_t>(index, shared, own, out, row_bytes, gpu);
  gather_words<uint16_t>(index, shared, own, out, row_bytes, gpu);
}

template <typename T>
void sum_rows(const RowIndex& index, const T* gradient, T* shared, T* own, int64_t n, const Gpu& gpu) {
  const Banks& banks = index.banks;
  const int64_t bank_rows = banks.shared + banks.tasks * banks.own;
  if (n == 0 || bank_rows == 0) return;
  const auto ranges = gpu.memory<PlaceRange>(bank_rows);
  const auto places = gpu.memory<uint32_t>(2 * banks.tasks * index.rows);
  const InverseIndex inverse{ranges.get(), places.get()};
  launch(invert_index, Grid{divide_up(bank_rows, invert_warps)}, 32 * invert_warps, 0, gpu.stream, {index, inverse});
  launch(param_gather_sum<T>, Grid{bank_rows * divide_up(n, row_sum_block)}, row_sum_threads, 0, gpu.stream,
         {gradient, inverse, shared, own, banks, index.rows, n});
}

#define DCRNN_INSTANCE(T) template void sum_rows(const RowIndex&, const T*, T*, T*, int64_t, const Gpu&)
DCRNN_FOR_EACH_TYPE(DCRNN_INSTANCE);

}  // namespace dcrnn_fast::cuda
