// Checks of the operators' arguments; see arguments.h.
#include "arguments.h"

namespace dcrnn_fast {

using torch::stable::contiguous;

void Arguments::prepare() {
  check_dim(x0, "x0", 2);
  check(x0.size(1) >= 1, "x0: got shape ", shape(x0), ", expected [B, D] with D >= 1");
  check_dtype(x0, "x0");
  check(steps >= 1, "steps: got ", steps, ", expected at least 1");
  check(cell == "gated" || cell == "cross", "cell: got '", cell, "', expected 'gated' or 'cross'");
  check_index(index);
  check_dim(shared_weight, "shared_weight", 3);
  check_dim(shared_bias, "shared_bias", 2);
  check_dim(private_weight, "private_weight", 4);
  check_dim(private_bias, "private_bias", 3);
  const int64_t batch = x0.size(0), dim = x0.size(1), gates = this->gates();
  if (context) {
    check_dim(*context, "context", 3);
    check_size(*context, "context", 0, steps);
    check_size(*context, "context", 1, batch);
    check_alike(*context, "context", x0, "x0");
  }
  const int64_t columns = this->columns();
  check(index.size(1) == dim || index.size(1) == steps * dim, "index: got shape ", shape(index), ", expected [T, ", dim, "] or [T, ",
        steps * dim, "]");
  check_size(shared_weight, "shared_weight", 1, gates);
  check_size(shared_weight, "shared_weight", 2, columns);
  check_size(shared_bias, "shared_bias", 0, shared_weight.size(0));
  check_size(shared_bias, "shared_bias", 1, gates);
  check_size(private_weight, "private_weight", 0, tasks());
  check_size(private_weight, "private_weight", 2, gates);
  check_size(private_weight, "private_weight", 3, columns);
  for (int64_t i = 0; i < 3; ++i) check_size(private_bias, "private_bias", i, private_weight.size(i));
  check_alike(shared_weight, "shared_weight", x0, "x0");
  check_alike(shared_bias, "shared_bias", x0, "x0");
  check_alike(private_weight, "private_weight", x0, "x0");
  check_alike(private_bias, "private_bias", x0, "x0");

  const bool rows_in_line = x0.stride(1) == 1 && x0.stride(0) >= dim;
  if (!rows_in_line) x0 = contiguous(x0);
  for (Tensor* tensor : {&shared_weight, &shared_bias, &private_weight, &private_bias, &index}) *tensor = contiguous(*tensor);
  if (context) context = context->size(2) ? std::optional(contiguous(*context)) : std::nullopt;
}

void Arguments::check_backward(const Tensor& grad, const Tensor& states, const Tensor& activations, bool return_states, int64_t needs,
                               bool has_context) const {
  const auto has_shape = [](const Tensor& tensor, const std::vector<int64_t>& expected) {
    if (tensor.dim() != static_cast<int64_t>(expected.size())) return false;
    for (int64_t i = 0; i < tensor.dim(); ++i)
      if (tensor.size(i) != expected[i]) return false;
    return true;
  };
  check_alike(grad, "grad", x0, "x0");
  check_alike(states, "states", x0, "x0");
  check_alike(activations, "activations", x0, "x0");
  check(has_shape(grad, out_shape(return_states)), "grad: got shape ", shape(grad), ", expected the shape of cross_rnn's first output");
  check(states.numel() == 0, "states: got shape ", shape(states), ", expected [0]: this backend computes them again");
  check(activations.numel() == 0 || has_shape(activations, activations_shape(keep_activations)), "activations: got shape ",
        shape(activations), ", expected the shape of cross_rnn's third output");
  check(!(needs & need_context) || has_context, "needs: asks for the gradient of context, which is absent");
}

std::vector<int64_t> Arguments::out_shape(bool return_states) const {
  if (return_states) return {tasks(), steps + 1, batch(), dim()};
  return {tasks(), batch(), dim()};
}

std::vector<int64_t> Arguments::activations_shape(int64_t keep) const {
  if (!(keep & keep_activations)) return {0};
  return {tasks(), steps, batch(), gates(), dim()};
}

void check_keep(int64_t keep) {
  check(keep == keep_nothing || keep == keep_activations, "keep: got ", keep, ", expected 0 (nothing) or 1 (activations)");
}

void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index) {
  check_index(index);
  check_alike(own, "private", shared, "shared");
  check(shared.dim() >= 1 && own.dim() == shared.dim() + 1, "private: got shape ", shape(own), ", expected [T, P, ...] beside shared ",
        shape(shared));
  for (int64_t i = 1; i < shared.dim(); ++i) check_size(own, "private", i + 1, shared.size(i));
  check_size(own, "private", 0, index.size(0));
}

void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private) {
  check_index(index);
  check(grad.dim() >= 2, "grad: got shape ", shape(grad), ", expected [T, R, ...]");
  check_size(grad, "grad", 0, index.size(0));
  check_size(grad, "grad", 1, index.size(1));
  check(num_shared >= 0 && num_private >= 0, "num_shared, num_private: got ", num_shared, " and ", num_private, ", expected at least 0");
}

std::vector<int64_t> with_trailing(std::vector<int64_t> leading, const Tensor& tensor, int64_t from) {
  for (int64_t i = from; i < tensor.dim(); ++i) leading.push_back(tensor.size(i));
  return leading;
}

int64_t values_each(const Tensor& tensor, int64_t from) {
  int64_t count = 1;
  for (int64_t i = from; i < tensor.dim(); ++i) count *= tensor.size(i);
  return count;
}

}  // namespace dcrnn_fast
