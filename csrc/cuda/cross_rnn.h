// cross_rnn and low_rank_cross_rnn on a GPU, by raw pointers. Every array is contiguous. The functions queue their work on the stream, and
// throw std::exception where CUDA refuses a launch. Letters as in ops.cpp, and L steps.
#pragma once

#include "../banks.h"
#include "gpu.h"
#include "types.h"

namespace dcrnn_fast::cuda {

// Which kernels run. `automatic` applies a rule of sizes, which was not measured on a GPU yet. The schedule does not change the result's
// bits.
enum class Schedule { automatic, step, all_steps };
enum class Tiles { automatic, small, large };

// The rows of two parameter banks, which kernels read in place.
template <typename T>
struct BankRows {
  Banks banks;
  const T *shared, *own;  // [W, banks.shared, ...], [T, W, banks.own, ...]

  // A task's row of `size` values at a step of the weights.
  DCRNN_MEMBER const T* row(int64_t task, int64_t weight_step, int64_t row, int64_t size) const {
    return row_of(banks, shared, own, task, weight_step, row, size);
  }
};

// The inputs of a call.
template <typename T>
struct Cell {
  const T *x0, *context;     // [B, D], [L, B, C] or null
  BankRows<T> weight, bias;  // rows [G, K], rows [G]
  int64_t batch;
  int dim, columns, gates, steps;  // D, C, G, L
  bool tf32;                       // float32 products by tensor cores, rounded to tf32
  Gpu gpu;
  Schedule schedule = Schedule::automatic;
  Tiles tiles = Tiles::automatic;

  int tasks() const { return static_cast<int>(bias.banks.tasks); }
  int weight_steps() const { return static_cast<int>(bias.banks.weight_steps); }  // W: 1, or L
  int64_t states() const { return batch * dim; }                                  // values of a task's state
  bool is_empty() const { return batch == 0 || tasks() == 0; }
};

// Of rank r: the weights' rows are [G, r]. `schedule` does not matter: all steps are one launch.
template <typename T>
struct LowRankCell : Cell<T> {
  BankRows<T> projection;  // rows [G, K]

  int rank() const { return static_cast<int>(projection.banks.rows()); }
  int64_t ranks() const { return this->batch * this->gates * rank(); }  // values of a task's z and y in a step
};

// out is [T, B, D], or [T, L + 1, B, D] with every_state. activations is null, or [T, L, B, G, D], in the low-rank cell [T, L, B, G, r].
template <typename T>
void forward(const Cell<T>& cell, T* out, bool every_state, T* activations);
template <typename T>
void forward(const LowRankCell<T>& cell, T* out, bool every_state, T* activations);

// Where a backward writes its gradients: shaped as the inputs, and null where they are not asked for or have no values. Those of the
// weights and biases are asked for together, and one bank at least has values; so are those of the low-rank cell's projections.
template <typename T>
struct GradientPointers {
  T *x0, *shared_weight, *shared_bias, *private_weight, *private_bias, *context;
  T *shared_projection = nullptr, *private_projection = nullptr;

  bool weights() const { return shared_weight || private_weight; }
  bool projections() const { return shared_projection || private_projection; }
};

// grad has the shape of forward's out. Computes the activations again where they are null. The cell is not empty.
template <typename T>
void backward(const Cell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out);
template <typename T>
void backward(const LowRankCell<T>& cell, const T* grad, bool every_state, const T* activations, const GradientPointers<T>& out);

}  // namespace dcrnn_fast::cuda
