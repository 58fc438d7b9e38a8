// Checks of the operators' arguments; see arguments.h.
#include "arguments.h"

#include <utility>

namespace dcrnn_fast {

void Arguments::prepare(int32_t device) {
  for (const auto& [tensor, name] : {std::pair<const Tensor&, const char*>{x0, "x0"},
                                     {shared_weight, "shared_weight"},
                                     {shared_bias, "shared_bias"},
                                     {private_weight, "private_weight"},
                                     {private_bias, "private_bias"},
                                     {index, "index"}})
    check_memory(tensor, name, device);
  if (context) check_memory(*context, "context", device);
  check(shared_projection.has_value() == low_rank() && private_projection.has_value() == low_rank(),
        "shared_projection, private_projection, projection_index: got some of them, expected all three, or none");
  if (low_rank()) {
    check_memory(*shared_projection, "shared_projection", device);
    check_memory(*private_projection, "private_projection", device);
    check_memory(*projection_index, "projection_index", device);
  }
  check_dim(x0, "x0", 2);
  check(x0.size(1) >= 1, "x0: got shape ", shape(x0), ", expected [B, D] with D >= 1");
  check_dtype(x0, "x0");
  check(steps >= 1 && steps <= most_steps, "steps: got ", steps, ", expected 1 to ", most_steps);
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
  check(index.size(1) == dim || index.size(1) == steps * dim, "index: got shape ", shape(index), ", expected [T, ", dim, "] or [T, ",
        steps * dim, "]");
  if (low_rank()) check_projection();
  const int64_t columns = low_rank() ? rank() : this->columns();
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
  check_alike_device(index, "index", x0, "x0");
  check_rows(shared_weight.size(0), private_weight.size(1), index, "shared_weight, private_weight");
  values_of({tasks(), steps + 1, batch, gates, dim}, "x0, steps, index: the states and activations of all tasks");
  values_of({tasks(), index.size(1), gates, columns}, "index: the weights of all tasks");

  const bool rows_in_line = x0.stride(1) == 1 && x0.stride(0) >= dim;
  if (!rows_in_line) x0 = dense(x0, "x0");
  shared_weight = dense(shared_weight, "shared_weight"), shared_bias = dense(shared_bias, "shared_bias");
  private_weight = dense(private_weight, "private_weight"), private_bias = dense(private_bias, "private_bias");
  index = dense(index, "index");
  if (low_rank()) {
    shared_projection = dense(*shared_projection, "shared_projection");
    private_projection = dense(*private_projection, "private_projection");
    projection_index = dense(*projection_index, "projection_index");
  }
  if (context) context = context->size(2) ? std::optional(dense(*context, "context")) : std::nullopt;
}

void Arguments::check_projection() const {
  const Tensor &shared = *shared_projection, &own = *private_projection, &places = *projection_index;
  check_index(places, "projection_index");
  check_dim(shared, "shared_projection", 3);
  check_dim(own, "private_projection", 4);
  check_size(places, "projection_index", 0, tasks());
  check(rank() >= 1 && places.size(1) % weight_steps() == 0, "projection_index: got shape ", shape(places), ", expected [T, ",
        weight_steps(), " * r], the rank r for each step of weights");
  check_size(shared, "shared_projection", 1, gates());
  check_size(shared, "shared_projection", 2, columns());
  check_size(own, "private_projection", 0, tasks());
  check_size(own, "private_projection", 2, gates());
  check_size(own, "private_projection", 3, columns());
  check_alike(shared, "shared_projection", x0, "x0");
  check_alike(own, "private_projection", x0, "x0");
  check_alike_device(places, "projection_index", x0, "x0");
  check_rows(shared.size(0), own.size(1), places, "shared_projection, private_projection");
  values_of({tasks(), steps, batch(), gates(), rank()}, "x0, steps, projection_index: the activations of all tasks");
  values_of({tasks(), places.size(1), gates(), columns()}, "projection_index: the projections of all tasks");
}

void Arguments::check_backward(const Tensor& grad, const Tensor& states, const Tensor& activations, bool return_states, int64_t needs,
                               bool has_context) const {
  const auto has_shape = [](const Tensor& tensor, const std::vector<int64_t>& expected) {
    if (tensor.dim() != static_cast<int64_t>(expected.size())) return false;
    for (int64_t i = 0; i < tensor.dim(); ++i)
      if (tensor.size(i) != expected[i]) return false;
    return true;
  };
  const int32_t device = device_type(x0);
  check_memory(grad, "grad", device);
  check_memory(states, "states", device);
  check_memory(activations, "activations", device);
  check_alike(grad, "grad", x0, "x0");
  check_alike(states, "states", x0, "x0");
  check_alike(activations, "activations", x0, "x0");
  check(has_shape(grad, out_shape(return_states)), "grad: got shape ", shape(grad), ", expected the shape of cross_rnn's first output");
  const auto absent = [](const Tensor& tensor) { return tensor.dim() == 1 && tensor.size(0) == 0; };
  check(absent(states), "states: got shape ", shape(states), ", expected [0]: this backend computes them again");
  check(absent(activations) || has_shape(activations, activations_shape(keep_activations)), "activations: got shape ", shape(activations),
        ", expected the shape of cross_rnn's third output");
  check(needs >= 0 && needs <= (need_banks | need_x0 | need_context | need_projections), "needs: got ", needs,
        ", expected a sum of the bits of Needs, 0 to 255");
  check(!(needs & need_projections) || low_rank(), "needs: asks for the gradient of a projection, which is absent");
  check(!(needs & need_context) || has_context, "needs: asks for the gradient of context, which is absent");
}

std::vector<int64_t> Arguments::out_shape(bool return_states) const {
  if (return_states) return {tasks(), steps + 1, batch(), dim()};
  return {tasks(), batch(), dim()};
}

std::vector<int64_t> Arguments::activations_shape(int64_t keep) const {
  if (!(keep & keep_activations)) return {0};
  return {tasks(), steps, batch(), gates(), low_rank() ? rank() : dim()};
}

void check_keep(int64_t keep) {
  check(keep == keep_nothing || keep == keep_activations, "keep: got ", keep, ", expected 0 (nothing) or 1 (activations)");
}

void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index, int32_t device) {
  check_memory(shared, "shared", device);
  check_memory(own, "private", device);
  check_memory(index, "index", device);
  check_index(index);
  check_alike_device(index, "index", shared, "shared");
  check_alike(own, "private", shared, "shared");
  check(shared.dim() >= 1 && own.dim() == shared.dim() + 1, "private: got shape ", shape(own), ", expected [T, P, ...] beside shared ",
        shape(shared));
  for (int64_t i = 1; i < shared.dim(); ++i) check_size(own, "private", i + 1, shared.size(i));
  check_size(own, "private", 0, index.size(0));
  check_rows(shared.size(0), own.size(1), index, "shared, private");
}

void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private, int32_t device) {
  check_memory(grad, "grad", device);
  check_memory(index, "index", device);
  check_index(index);
  check_alike_device(index, "index", grad, "grad");
  check(grad.dim() >= 2, "grad: got shape ", shape(grad), ", expected [T, R, ...]");
  check_size(grad, "grad", 0, index.size(0));
  check_size(grad, "grad", 1, index.size(1));
  check_rows(num_shared, num_private, index, "num_shared, num_private");
  const int64_t each = values_each(grad, 2);
  values_of({index.size(0), num_private, each}, "num_private: the gradient of the private rows");
  values_of({num_shared, each}, "num_shared: the gradient of the shared rows");
}

std::vector<int64_t> with_trailing(std::vector<int64_t> leading, const Tensor& tensor, int64_t from) {
  for (int64_t i = from; i < tensor.dim(); ++i) leading.push_back(tensor.size(i));
  return leading;
}

int64_t values_each(const Tensor& tensor, int64_t from) {
  return values_of(with_trailing({}, tensor, from), "grad, shared: the values of a row");
}

}  // namespace dcrnn_fast
