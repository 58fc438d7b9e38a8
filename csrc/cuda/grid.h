// The blocks of a launch.
#pragma once

#include <cstdint>

namespace dcrnn_fast::cuda {

struct Grid {
  int64_t x, y = 1;
  bool fits() const { return x <= INT32_MAX && y <= 65535; }  // whether a GPU can start so many
};

}  // namespace dcrnn_fast::cuda
