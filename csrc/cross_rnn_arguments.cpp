// Checks of the operator's arguments; see cross_rnn_arguments.h.
#include "cross_rnn_arguments.h"

#include <utility>

namespace dcrnn_fast {

void Arguments::prepare(int32_t device) {
  check_inputs(device);
  check_weights(columns());
  make_dense();
}

// Checks everything but the columns of the weights.
void Arguments::check_inputs(int32_t device) const {
  for (const auto& [tensor, name] : {std::pair<const Tensor&, const char*>{x0, "x0"},
                                     {shared_weight, "shared_weight"},
                                     {shared_bias, "shared_bias"},
                                     {private_weight, "private_weight"},
                                     {private_bias, "private_bias"},
                                     {index, "index"}})
    check_memory(tensor, name, device);
  if (context) check_memory(*context, "context", device);
  check_dim(x0, "x0", 2);
  check(x0.size(1) >= 1, "x0: got shape ", shape(x0), ", expected [B, D] with D >= 1");
  check_dtype(x0, "x0");
  check(steps >= 1 && steps <= most_steps, "steps: got ", steps, ", expected 1 to ", most_steps);
  check(cell == "gated" || cell == "cross", "cell: got '", cell, "', expected 'gated' or 'cross'");
  check_index(index);
  if (context) {
    check_dim(*context, "context", 3);
    check_size(*context, "context", 0, steps);
    check_size(*context, "context", 1, batch());
    check_alike(*context, "context", x0, "x0");
  }
  check(index.size(1) == dim() || index.size(1) == steps * dim(), "index: got shape ", shape(index), ", expected [T, ", dim(), "] or [T, ",
        steps * dim(), "]");
}

void Arguments::check_weights(int64_t columns) const {
  check_dim(shared_weight, "shared_weight", 3);
  check_dim(shared_bias, "shared_bias", 2);
  check_dim(private_weight, "private_weight", 4);
  check_dim(private_bias, "private_bias", 3);
  check_size(shared_weight, "shared_weight", 1, gates());
  check_size(shared_weight, "shared_weight", 2, columns);
  check_size(shared_bias, "shared_bias", 0, shared_weight.size(0));
  check_size(shared_bias, "shared_bias", 1, gates());
  check_size(private_weight, "private_weight", 0, tasks());
  check_size(private_weight, "private_weight", 2, gates());
  check_size(private_weight, "private_weight", 3, columns);
  for (int64_t i = 0; i < 3; ++i) check_size(private_bias, "private_bias", i, private_weight.size(i));
  check_alike(shared_weight, "shared_weight", x0, "x0");
  check_alike(shared_bias, "shared_bias", x0, "x0");
  check_alike(private_weight, "private_weight", x0, "x0");
  check_alike(private_bias, "private_bias", x0, "x0");
  check_alike_device(index, "index", x0, "x0");
  check_rows(shared_weight.size(0), private_weight.size(1), index, "shared_weight, private_weight");
  values_of({tasks(), steps + 1, batch(), gates(), dim()}, "x0, steps, index: the states and activations of all tasks");
  values_of({tasks(), index.size(1), gates(), columns}, "index: the weights of all tasks");
}

void Arguments::make_dense() {
  const bool rows_in_line = x0.stride(1) == 1 && x0.stride(0) >= dim();
  if (!rows_in_line) x0 = dense(x0, "x0");
  shared_weight = dense(shared_weight, "shared_weight"), shared_bias = dense(shared_bias, "shared_bias");
  private_weight = dense(private_weight, "private_weight"), private_bias = dense(private_bias, "private_bias");
  index = dense(index, "index");
  if (context) context = context->size(2) ? std::optional(dense(*context, "context")) : std::nullopt;
}

namespace {

bool has_shape(const Tensor& tensor, const std::vector<int64_t>& expected) {
  if (tensor.dim() != static_cast<int64_t>(expected.size())) return false;
  for (int64_t i = 0; i < tensor.dim(); ++i)
    if (tensor.size(i) != expected[i]) return false;
  return true;
}

}  // namespace

void Arguments::check_backward(const Tensor& grad, const Tensor& states, const Tensor& activations, int64_t needs) const {
  check_gradient(grad, needs, need_inputs);
  check_memory(states, "states", device_type(x0));
  check_alike(states, "states", x0, "x0");
  check(has_shape(states, {0}), "states: got shape ", shape(states), ", expected [0]: this backend computes them again");
  check_activations(activations, activations_shape());
}

void Arguments::check_gradient(const Tensor& grad, int64_t needs, int64_t most_needs) const {
  check_memory(grad, "grad", device_type(x0));
  check_alike(grad, "grad", x0, "x0");
  check(has_shape(grad, out_shape()), "grad: got shape ", shape(grad), ", expected the shape of the forward's first output");
  check(needs >= 0 && needs <= most_needs, "needs: got ", needs, ", expected a sum of the bits of Needs, 0 to ", most_needs);
  check(!(needs & need_context) || has_context, "needs: asks for the gradient of context, which is absent");
}

void Arguments::check_activations(const Tensor& activations, const std::vector<int64_t>& kept) const {
  check_memory(activations, "activations", device_type(x0));
  check_alike(activations, "activations", x0, "x0");
  check(has_shape(activations, {0}) || has_shape(activations, kept), "activations: got shape ", shape(activations),
        ", expected the shape of the forward's last output");
}

std::vector<int64_t> Arguments::out_shape() const {
  if (return_states) return {tasks(), steps + 1, batch(), dim()};
  return {tasks(), batch(), dim()};
}

std::vector<int64_t> Arguments::shape_of_activations(int64_t width, bool kept) const {
  if (!kept) return {0};
  return {tasks(), steps, batch(), gates(), width};
}

void check_keep(int64_t keep) {
  check(keep == keep_nothing || keep == keep_activations, "keep: got ", keep, ", expected 0 (nothing) or 1 (activations)");
}

}  // namespace dcrnn_fast
