// The operators' arguments, checked against each other on any device. Only the CPU checks the values of an index: on a GPU, reading them
// would wait for the device.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bank_index.h"
#include "checks.h"

namespace dcrnn_fast {

// The arguments of cross_rnn and its backward.
struct Arguments {
  Tensor x0, shared_weight, shared_bias, private_weight, private_bias, index;
  int64_t steps;
  std::string cell;
  std::optional<Tensor> context, shared_projection, private_projection, projection_index;

  // Checks the arguments, for kernels of a type of device, and makes them contiguous; x0 may keep a row stride. Drops a context without
  // columns.
  void prepare(int32_t device);
  // Checks the further arguments of the backward. `needs` may ask for the gradient of a context without columns.
  void check_backward(const Tensor& grad, const Tensor& states, const Tensor& activations, bool return_states, int64_t needs,
                      bool has_context) const;

  int64_t tasks() const { return index.size(0); }
  int64_t batch() const { return x0.size(0); }
  int64_t dim() const { return x0.size(1); }
  int64_t gates() const { return cell == "gated" ? 2 : 1; }
  int64_t context_columns() const { return context ? context->size(2) : 0; }
  int64_t columns() const { return context_columns() + dim(); }
  int64_t weight_steps() const { return index.size(1) / dim(); }
  bool low_rank() const { return projection_index.has_value(); }
  int64_t rank() const { return low_rank() ? projection_index->size(1) / weight_steps() : 0; }
  BankIndex bank() const {
    return {index.const_data_ptr<int32_t>(), tasks(), index.size(1), shared_weight.size(0), private_weight.size(1)};
  }
  BankIndex projection_bank() const {
    return {projection_index->const_data_ptr<int32_t>(), tasks(), projection_index->size(1), shared_projection->size(0),
            private_projection->size(1)};
  }

  // The shapes of the forward's outputs.
  std::vector<int64_t> out_shape(bool return_states) const;
  std::vector<int64_t> activations_shape(int64_t keep) const;

 private:
  void check_projection() const;
};

// What the forward keeps for the backward, as bits: the activations of each step (a and g, or with a projection z and y), and the state
// after each step but the last. The backward computes again what was not kept.
enum Keep : int64_t { keep_nothing = 0, keep_activations = 1, keep_states = 2, keep_both = keep_activations | keep_states };

// Refuses a `keep` with states: the C++ and CUDA backends always compute them again.
void check_keep(int64_t keep);

// Which gradients the backward computes, as bits in the order of the operator's inputs. Any bit of need_banks asks for all four banks,
// any of need_projections for both.
enum Needs : int64_t {
  need_x0 = 1,
  need_shared_weight = 2,
  need_shared_bias = 4,
  need_private_weight = 8,
  need_private_bias = 16,
  need_context = 32,
  need_shared_projection = 64,
  need_private_projection = 128,
  need_projections = need_shared_projection | need_private_projection,
  need_banks = need_shared_weight | need_shared_bias | need_private_weight | need_private_bias,
};

// Check the arguments of param_gather and its backward: banks shared [S, ...] and own [T, P, ...], and index [T, R].
void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index, int32_t device);
void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private, int32_t device);

// with_trailing appends the tensor's sizes from dimension `from` on to `leading`; values_each multiplies these sizes.
std::vector<int64_t> with_trailing(std::vector<int64_t> leading, const Tensor& tensor, int64_t from);
int64_t values_each(const Tensor& tensor, int64_t from);

}  // namespace dcrnn_fast
