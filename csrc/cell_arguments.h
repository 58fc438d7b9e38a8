// The arguments of cross_rnn and low_rank_cross_rnn, and of their backwards: as the dispatcher passes them, and checked against each other,
// on any device and with the words of dcrnn_fast/ops/cross_rnn.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "banks.h"
#include "checks.h"
#include "text.h"

namespace dcrnn_fast {

struct CellArguments {
  Tensor x0, shared_weight, shared_bias, private_weight, private_bias;
  int64_t steps;
  std::string cell;
  std::optional<Tensor> context;
  bool return_states, allow_tf32;
  bool has_context = context.has_value();  // stays true of a context without columns

  // Checks the arguments, and makes them contiguous; x0 may keep a row stride. Drops a context without columns.
  void prepare();
  // Checks the further arguments of the backward.
  void check_backward(const Tensor& grad, const Tensor& activations, int64_t grad_mask) const;

  int64_t tasks() const { return private_bias.size(0); }
  int64_t batch() const { return x0.size(0); }
  int64_t dim() const { return x0.size(1); }
  int64_t gates() const { return cell == "gated" ? 2 : 1; }
  int64_t context_columns() const { return context ? context->size(2) : 0; }
  int64_t columns() const { return context_columns() + dim(); }
  int64_t weight_steps() const { return private_bias.size(1); }
  Banks banks() const { return {tasks(), weight_steps(), shared_bias.size(1), private_bias.size(2)}; }

  // The shapes of the forward's outputs.
  std::vector<int64_t> out_shape() const;
  std::vector<int64_t> activations_shape(bool saved = true) const { return shape_of_activations(dim(), saved); }

 protected:
  // L, G, B, D, C and K, from all arguments but the weights.
  Sizes check_inputs() const;
  // `columns` is the letter of the weights' columns, K or r.
  void check_weights(char columns, Sizes& sizes) const;
  void check_like_x0(const Tensor& tensor, const char* name, std::string_view letters, Sizes& sizes) const;
  void make_dense();
  void check_saved(const Tensor& grad, const Tensor& activations, const std::vector<int64_t>& shape, int64_t grad_mask, int64_t most) const;
  std::vector<int64_t> shape_of_activations(int64_t width, bool saved) const;
};

// As above: the weights' rows have r columns, and a projection's rows stand before them.
struct LowRankArguments : CellArguments {
  Tensor shared_projection, private_projection;

  void prepare();
  void check_backward(const Tensor& grad, const Tensor& activations, int64_t grad_mask) const;

  int64_t rank() const { return shared_projection.size(1) + private_projection.size(2); }
  Banks projection_banks() const { return {tasks(), weight_steps(), shared_projection.size(1), private_projection.size(2)}; }
  std::vector<int64_t> activations_shape(bool saved = true) const { return shape_of_activations(rank(), saved); }
};

// Which gradients a backward computes, as bits in the order of its results. Any bit of grad_weights asks for all weights and biases, any of
// grad_projections, which low_rank_cross_rnn alone has, for both.
enum GradMask : int64_t {
  grad_x0 = 1,
  grad_shared_weight = 2,
  grad_shared_bias = 4,
  grad_private_weight = 8,
  grad_private_bias = 16,
  grad_context = 32,
  grad_shared_projection = 64,
  grad_private_projection = 128,
  grad_projections = grad_shared_projection | grad_private_projection,
  grad_weights = grad_shared_weight | grad_shared_bias | grad_private_weight | grad_private_bias,
  grad_inputs = grad_x0 | grad_weights | grad_context,
};

// The schemas of ops.cpp in C++. `kernel` is a device's implementation, for arguments that nobody has checked yet.
using Forward = std::tuple<Tensor, Tensor>;                                            // out, activations
using CrossRnnGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // of x0, the weights and biases, and the context

template <Forward (*kernel)(CellArguments&, bool saved)>
Forward cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, int64_t steps, Text cell,
                  std::optional<Tensor> context, bool return_states, bool allow_tf32, bool saved) {
  CellArguments a{x0, shared_weight, shared_bias, private_weight, private_bias, steps, cell, context, return_states, allow_tf32};
  return kernel(a, saved);
}

template <CrossRnnGradients (*kernel)(CellArguments&, const Tensor& grad, const Tensor& activations, int64_t grad_mask)>
CrossRnnGradients cross_rnn_backward(Tensor grad, Tensor activations, int64_t grad_mask, Tensor x0, Tensor shared_weight,
                                     Tensor shared_bias, Tensor private_weight, Tensor private_bias, int64_t steps, Text cell,
                                     std::optional<Tensor> context, bool return_states, bool allow_tf32) {
  CellArguments a{x0, shared_weight, shared_bias, private_weight, private_bias, steps, cell, context, return_states, allow_tf32};
  return kernel(a, grad, activations, grad_mask);
}

// Of x0, the weights and biases, the context and both projections.
using LowRankGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <Forward (*kernel)(LowRankArguments&, bool saved)>
Forward low_rank_cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias,
                           Tensor shared_projection, Tensor private_projection, int64_t steps, Text cell, std::optional<Tensor> context,
                           bool return_states, bool allow_tf32, bool saved) {
  LowRankArguments a{{x0, shared_weight, shared_bias, private_weight, private_bias, steps, cell, context, return_states, allow_tf32},
                     shared_projection,
                     private_projection};
  return kernel(a, saved);
}

template <LowRankGradients (*kernel)(LowRankArguments&, const Tensor& grad, const Tensor& activations, int64_t grad_mask)>
LowRankGradients low_rank_cross_rnn_backward(Tensor grad, Tensor activations, int64_t grad_mask, Tensor x0, Tensor shared_weight,
                                             Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor shared_projection,
                                             Tensor private_projection, int64_t steps, Text cell, std::optional<Tensor> context,
                                             bool return_states, bool allow_tf32) {
  LowRankArguments a{{x0, shared_weight, shared_bias, private_weight, private_bias, steps, cell, context, return_states, allow_tf32},
                     shared_projection,
                     private_projection};
  return kernel(a, grad, activations, grad_mask);
}

}  // namespace dcrnn_fast
