// Memory for what an operator returns.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../checks.h"

namespace dcrnn_fast::cpu {

// malloc keeps no large blocks for reuse. The system hands them out page by page while the passes write to them: 12000 page faults for 50
// MB of activations. Pages of 2 MiB, where the system grants them on request, avoid most of these.
inline void ask_for_huge_pages([[maybe_unused]] const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t page = 2 << 20, fresh = 32 << 20;
  const uintptr_t start = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr()), bytes = tensor.numel() * tensor.element_size();
  const uintptr_t begin = (start + page - 1) / page * page, end = (start + bytes) / page * page;
  if (bytes >= fresh && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

inline Tensor new_result(const Tensor& like, const std::vector<int64_t>& shape, const char* what) {
  const Tensor out = allocated(like, shape, what);
  ask_for_huge_pages(out);
  return out;
}

}  // namespace dcrnn_fast::cpu
