// The low-rank cell's forward, for checked arguments.
#pragma once

#include "../arguments.h"
#include "types.h"

namespace dcrnn_fast::cpu {

// Writes the states to out, and z and y of every step to `activations` unless it is null; shapes as in ops.cpp.
template <typename T>
void low_rank_forward(const Arguments& arguments, T* out, bool return_states, T* activations);

}  // namespace dcrnn_fast::cpu
