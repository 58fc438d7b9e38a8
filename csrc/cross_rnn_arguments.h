// The arguments of cross_rnn and its backward: as the dispatcher passes them, and checked against each other on any device. Only the CPU
// checks the values of an index: on a GPU, reading them would wait for the device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bank_index.h"
#include "checks.h"
#include "text.h"

namespace dcrnn_fast {

struct Arguments {
  Tensor x0, shared_weight, shared_bias, private_weight, private_bias, index;
  int64_t steps;
  std::string cell;
  std::optional<Tensor> context;
  bool return_states, allow_tf32;
  bool has_context = context.has_value();  // stays true of a context without columns

  // Checks the arguments, for kernels of a type of device, and makes them contiguous; x0 may keep a row stride. Drops a context without
  // columns.
  void prepare(int32_t device);
  // Checks the further arguments of the backward.
  void check_backward(const Tensor& grad, const Tensor& states, const Tensor& activations, int64_t needs) const;

  int64_t tasks() const { return index.size(0); }
  int64_t batch() const { return x0.size(0); }
  int64_t dim() const { return x0.size(1); }
  int64_t gates() const { return cell == "gated" ? 2 : 1; }
  int64_t context_columns() const { return context ? context->size(2) : 0; }
  int64_t columns() const { return context_columns() + dim(); }
  int64_t weight_steps() const { return index.size(1) / dim(); }
  BankIndex bank() const {
    return {index.const_data_ptr<int32_t>(), tasks(), index.size(1), shared_weight.size(0), private_weight.size(1)};
  }

  // The shapes of the forward's outputs.
  std::vector<int64_t> out_shape() const;
  std::vector<int64_t> activations_shape(bool kept = true) const { return shape_of_activations(dim(), kept); }

 protected:
  void check_inputs(int32_t device) const;
  void check_weights(int64_t columns) const;
  void make_dense();
  void check_gradient(const Tensor& grad, int64_t needs, int64_t most_needs) const;
  void check_activations(const Tensor& activations, const std::vector<int64_t>& shape) const;
  std::vector<int64_t> shape_of_activations(int64_t width, bool kept) const;
};

// What the forward keeps for the backward, as bits: the activations a and g of each step, and the state after each step but the last. The
// backward computes again what was not kept.
enum Keep : int64_t { keep_nothing = 0, keep_activations = 1, keep_states = 2, keep_both = keep_activations | keep_states };

// Refuses a `keep` with states: the C++ and CUDA backends always compute them again.
void check_keep(int64_t keep);

// Which gradients a backward computes, as bits in the order of its results. Any bit of need_banks asks for all four banks, any of
// need_projections, which low_rank_cross_rnn alone has, for both.
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
  need_inputs = need_x0 | need_banks | need_context,
};

// The schemas of ops.cpp in C++. `kernel` is a device's implementation, for arguments that nobody has checked yet.
using CrossRnn = std::tuple<Tensor, Tensor, Tensor>;                                   // out, states, activations
using CrossRnnGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // of x0, the banks and the context

template <CrossRnn (*kernel)(Arguments&, int64_t keep)>
CrossRnn cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor index,
                   int64_t steps, Text cell, std::optional<Tensor> context, bool return_states, bool allow_tf32, int64_t keep) {
  Arguments a{x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context, return_states, allow_tf32};
  return kernel(a, keep);
}

template <CrossRnnGradients (*kernel)(Arguments&, const Tensor& grad, const Tensor& states, const Tensor& activations, int64_t needs)>
CrossRnnGradients cross_rnn_backward(Tensor grad, Tensor states, Tensor activations, int64_t needs, Tensor x0, Tensor shared_weight,
                                     Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor index, int64_t steps, Text cell,
                                     std::optional<Tensor> context, bool return_states, bool allow_tf32) {
  Arguments a{x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context, return_states, allow_tf32};
  return kernel(a, grad, states, activations, needs);
}

}  // namespace dcrnn_fast
