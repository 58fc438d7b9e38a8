// Memory for what an operator returns.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <vector>

#include "../checks.h"
#include "buffer.h"

namespace dcrnn_fast::cpu {

inline Tensor new_result(const Tensor& like, const std::vector<int64_t>& shape, const char* what) {
  const Tensor out = allocated(like, shape, what);
  ask_for_huge_pages(out.mutable_data_ptr(), out.numel() * out.element_size());
  return out;
}

}  // namespace dcrnn_fast::cpu
