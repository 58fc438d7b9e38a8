// Divides work among PyTorch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace dcrnn_fast::cpu {

// A parallel chunk should touch at least this many values to be worth waking a thread.
inline constexpr int64_t grain_values = 16384;

inline int64_t grain(int64_t values_each) { return std::max<int64_t>(1, grain_values / std::max<int64_t>(1, values_each)); }

// body(begin, end) for parts of [begin, end). Throws what a part has thrown: PyTorch's C interface passes no words on.
template <typename Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  std::mutex mutex;
  std::exception_ptr first;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
    try {
      body(from, to);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
  });
  if (first) std::rethrow_exception(first);
}

}  // namespace dcrnn_fast::cpu
