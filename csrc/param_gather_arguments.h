// The arguments of param_gather and its backward, checked against each other on any device. Only the CPU checks the values of an index: on
// a GPU, reading them would wait for the device.
#pragma once

#include <cstdint>

#include "checks.h"

namespace dcrnn_fast {

// A value of index [tasks, rows] below num_shared names a row of the shared bank; num_shared + p names row p of the task's private bank.
struct BankIndex {
  const int32_t* index;
  int64_t tasks, rows, num_shared, num_private;
};

// Banks shared [S, ...] and own [T, P, ...], and index [T, R].
void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index);
void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private);

// The product of the tensor's sizes from dimension `from` on.
int64_t values_each(const Tensor& tensor, int64_t from);

}  // namespace dcrnn_fast
