// From a tensor's dtype to a type.
#pragma once

#include "../checks.h"
#include "gemm.h"

namespace dcrnn_fast::cpu {

// Calls body with a value of the dtype's type; refuses dtypes that have no kernels.
template <typename Body>
auto with_type(const Tensor& tensor, const char* op, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    case ScalarType::Half:
      return body(Half{});
    default:
      fail(op, ": expected float32, float64, bfloat16 or float16");
  }
}

}  // namespace dcrnn_fast::cpu
