// The arguments of param_gather and its backward, checked against each other on any device. Only the CPU checks the values of an index: on
// a GPU, reading them would wait for the device.
#pragma once

#include <cstdint>

#include "bank_index.h"
#include "checks.h"

namespace dcrnn_fast {

// Banks shared [S, ...] and own [T, P, ...], and index [T, R].
void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index, int32_t device);
void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private, int32_t device);

// The product of the tensor's sizes from dimension `from` on.
int64_t values_each(const Tensor& tensor, int64_t from);

}  // namespace dcrnn_fast
