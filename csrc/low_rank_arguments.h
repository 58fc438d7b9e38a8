// The arguments of low_rank_cross_rnn and its backward, as those of cross_rnn in cross_rnn_arguments.h: the weights' rows have r columns,
// and a projection's rows stand before them.
#pragma once

#include "cross_rnn_arguments.h"

namespace dcrnn_fast {

struct LowRankArguments : Arguments {
  Tensor shared_projection, private_projection, projection_index;

  void prepare(int32_t device);
  void check_backward(const Tensor& grad, const Tensor& activations, int64_t needs) const;

  int64_t rank() const { return projection_index.size(1) / weight_steps(); }
  BankIndex projection_bank() const {
    return {projection_index.const_data_ptr<int32_t>(), tasks(), projection_index.size(1), shared_projection.size(0),
            private_projection.size(1)};
  }
  std::vector<int64_t> activations_shape(bool kept = true) const { return shape_of_activations(rank(), kept); }

 private:
  void check_projection() const;
};

using LowRankCrossRnn = std::tuple<Tensor, Tensor>;  // out, activations: z and y
// Of x0, the banks, the context and both projections.
using LowRankGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <LowRankCrossRnn (*kernel)(LowRankArguments&, bool keep)>
LowRankCrossRnn low_rank_cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias,
                                   Tensor index, Tensor shared_projection, Tensor private_projection, Tensor projection_index,
                                   int64_t steps, Text cell, std::optional<Tensor> context, bool return_states, bool allow_tf32,
                                   bool keep) {
  LowRankArguments a{{x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context, return_states, allow_tf32},
                     shared_projection,
                     private_projection,
                     projection_index};
  return kernel(a, keep);
}

template <LowRankGradients (*kernel)(LowRankArguments&, const Tensor& grad, const Tensor& activations, int64_t needs)>
LowRankGradients low_rank_cross_rnn_backward(Tensor grad, Tensor activations, int64_t needs, Tensor x0, Tensor shared_weight,
                                             Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor index,
                                             Tensor shared_projection, Tensor private_projection, Tensor projection_index, int64_t steps,
                                             Text cell, std::optional<Tensor> context, bool return_states, bool allow_tf32) {
  LowRankArguments a{{x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context, return_states, allow_tf32},
                     shared_projection,
                     private_projection,
                     projection_index};
  return kernel(a, grad, activations, needs);
}

}  // namespace dcrnn_fast
