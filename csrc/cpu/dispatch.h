// From a tensor's dtype to its C++ type on the CPU.
#pragma once

#include "../checks.h"
#include "types.h"

namespace dcrnn_fast::cpu {

template <typename Body>
auto with_type(const Tensor& tensor, const char* name, const Body& body) {
  return dcrnn_fast::with_type<BFloat16, Half>(tensor, name, body);
}

}  // namespace dcrnn_fast::cpu
