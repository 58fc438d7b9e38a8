// cross_rnn on a GPU, by raw pointers: what a program calls, with PyTorch or without. Everything is contiguous and on the current device;
// work is queued on `stream`, and the first error of CUDA's is returned. Letters as in cross_rnn_forward_kernels.h, R = D or L * D rows a
// task.
#pragma once

#include "runtime.h"
#include "types.h"

namespace dcrnn_fast::cuda {

// Which kernels compute. `automatic` leaves the choice to a rule of sizes that was not measured on a GPU yet; the bits do not depend on the
// schedule.
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
};

// out [T, B, D], or [T, L + 1, B, D] with every_state; activations [T, L, B, G, D] or null; scratch of forward_scratch() values.
template <typename Value>
cudaError_t forward(const Problem<Value>& problem, Value* out, bool every_state, Value* activations, Value* scratch, cudaStream_t stream);

template <typename Value>
int64_t forward_scratch(const Problem<Value>& problem, bool every_state);

// What the backward writes before the library's products make dW of it.
template <typename Value>
struct Workspace {
  Value *states, *gradients;          // [T, L - 1, B, D], da|dq [T, L, B, G, D]
  accumulator<Value>*d, *dx0, *sums;  // [T, B, D], [T, B, D], [T, L, row_tiles, G, D]: see sum_biases
};

template <typename Value>
int backward_row_tiles(const Problem<Value>& problem);

// grad is the gradient of forward's out. Fills the workspace, and dx0 [B, D] and dcontext [L, B, C] where they are not null.
template <typename Value>
cudaError_t backward(const Problem<Value>& problem, const Value* grad, bool every_state, const Value* activations,
                     const Workspace<Value>& workspace, Value* dx0, Value* dcontext, cudaStream_t stream);

// The steps whose products with da|dq may be added before they are rounded: first the one that reads x0, then, of tied weights, all others
// together, of untied ones each.
template <typename Value>
int step_groups(const Problem<Value>& problem) {
  return problem.weight_steps() > 1 || problem.steps == 1 ? problem.steps : 2;
}

// The weight banks' gradients from the products of each group, [groups, T, G, D, K].
template <typename Value>
cudaError_t sum_weights(const Problem<Value>& problem, const Value* products, Value* shared, Value* own, cudaStream_t stream);

// The bias banks' gradients from the workspace's sums, of which the backward leaves the sum over all rows in each step's first tile, and of
// tied weights that over all steps in the first one's.
template <typename Value>
cudaError_t sum_biases(const Problem<Value>& problem, const accumulator<Value>* sums, Value* shared, Value* own, cudaStream_t stream);

}  // namespace dcrnn_fast::cuda
