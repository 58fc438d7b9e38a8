// Where the rows of a task's weights lie, for host and device code.
#pragma once

#include <cstdint>

#include "cell.h"

namespace dcrnn_fast {

// At each of `weight_steps` steps, a task's first `shared` rows lie in the bank of all tasks [W, shared, ...], the other `own` in
// [tasks, W, own, ...].
struct Banks {
  int64_t tasks, weight_steps, shared, own;
  DCRNN_MEMBER int64_t rows() const { return shared + own; }
};

// A row of `size` values of a task at a step of the weights.
template <typename T>
DCRNN_CELL const T* row_of(const Banks& banks, const T* shared, const T* own, int64_t task, int64_t weight_step, int64_t row,
                           int64_t size) {
  return row < banks.shared ? shared + (weight_step * banks.shared + row) * size
                            : own + ((task * banks.weight_steps + weight_step) * banks.own + row - banks.shared) * size;
}

}  // namespace dcrnn_fast
