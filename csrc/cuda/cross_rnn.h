// cross_rnn on a GPU, by raw pointers, for programs with or without PyTorch. Every array is contiguous and on the current device. Functions
// queue their work on `stream` and return the first CUDA error. Letters as in ops.cpp, and L steps.
#pragma once

#include "param_gather.h"
#include "runtime.h"
#include "types.h"

namespace dcrnn_fast::cuda {

// Which kernels run. `automatic` applies a rule of sizes, which was not measured on a GPU yet. The schedule does not change the result's
// bits.
enum class Schedule { automatic, step, all_steps };
enum class Tiles { automatic, small, large };

template <typename Value>
struct Problem {
  const Value *x0, *context;                                                 // [B, D], [L, B, C] or null
  const Value *shared_weight, *shared_bias, *private_weight, *private_bias;  // [S, G, K], [S, G], [T, P, G, K], [T, P, G]
  const int32_t* index;                                                      // [T, R]; a value out of range makes its unit's state NaN
  int64_t batch;
  int tasks, dim, columns, gates, steps, rows, num_shared, num_private;
  bool tf32;  // float32 products by tensor cores, rounded to tf32
  Device device;
  Schedule schedule = Schedule::automatic;
  Tiles tiles = Tiles::automatic;

  int64_t states() const { return batch * dim; }
  int weight_steps() const { return rows / dim; }
  BankIndex bank() const { return {index, tasks, rows, num_shared, num_private}; }
};

// out is [T, B, D], or [T, L + 1, B, D] with every_state; activations is [T, L, B, G, D] or null; scratch has forward_scratch() values.
template <typename Value>
cudaError_t forward(const Problem<Value>& problem, Value* out, bool every_state, Value* activations, Value* scratch, cudaStream_t stream);

template <typename Value>
int64_t forward_scratch(const Problem<Value>& problem, bool every_state);

// Memory that the backward writes. The matrix products for dW, [step_groups(), T, G, D, K], read the states and da|dq, the gradients of a
// and of the gate's argument q.
template <typename Value>
struct Workspace {
  Value *states, *gradients;      // [T, L - 1, B, D], da|dq [T, L, B, G, D]
  Value* d;                       // [T, B, D], or null for one step
  accumulator<Value>*dx0, *sums;  // [T, B, D], or null where no dx0 is asked for; [T, L, row_tiles, G, D], for sum_tiles
};

template <typename Value>
int backward_row_tiles(const Problem<Value>& problem);

// grad has the shape of forward's out. Fills the workspace, and writes dx0 [B, D] and dcontext [L, B, C] where they are not null. Leaves
// the sum over a step's rows in the step's first tile of `sums`; if all steps share their weights, that over all steps in the first's.
template <typename Value>
cudaError_t backward(const Problem<Value>& problem, const Value* grad, bool every_state, const Value* activations,
                     const Workspace<Value>& workspace, Value* dx0, Value* dcontext, cudaStream_t stream);

// The number of groups of steps whose products for dW may be added before they are rounded. The first step, which reads x0, is a group. So
// is each other step; but if all steps share their weights, these others are one group together.
template <typename Value>
int step_groups(const Problem<Value>& problem) {
  return problem.weight_steps() > 1 || problem.steps == 1 ? problem.steps : 2;
}

}  // namespace dcrnn_fast::cuda
