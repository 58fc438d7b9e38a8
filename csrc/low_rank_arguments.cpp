// Checks of the operator's arguments; see low_rank_arguments.h.
#include "low_rank_arguments.h"

namespace dcrnn_fast {

void LowRankArguments::prepare(int32_t device) {
  check_memory(shared_projection, "shared_projection", device);
  check_memory(private_projection, "private_projection", device);
  check_memory(projection_index, "projection_index", device);
  check_inputs(device);
  check_projection();
  check_weights(rank());
  make_dense();
  shared_projection = dense(shared_projection, "shared_projection");
  private_projection = dense(private_projection, "private_projection");
  projection_index = dense(projection_index, "projection_index");
}

void LowRankArguments::check_projection() const {
  check_index(projection_index, "projection_index");
  check_dim(shared_projection, "shared_projection", 3);
  check_dim(private_projection, "private_projection", 4);
  check_size(projection_index, "projection_index", 0, tasks());
  check(rank() >= 1 && projection_index.size(1) % weight_steps() == 0, "projection_index: got shape ", shape(projection_index),
        ", expected [T, ", weight_steps(), " * r], the rank r for each step of weights");
  check_size(shared_projection, "shared_projection", 1, gates());
  check_size(shared_projection, "shared_projection", 2, columns());
  check_size(private_projection, "private_projection", 0, tasks());
  check_size(private_projection, "private_projection", 2, gates());
  check_size(private_projection, "private_projection", 3, columns());
  check_alike(shared_projection, "shared_projection", x0, "x0");
  check_alike(private_projection, "private_projection", x0, "x0");
  check_alike_device(projection_index, "projection_index", x0, "x0");
  check_rows(shared_projection.size(0), private_projection.size(1), projection_index, "shared_projection, private_projection");
  values_of({tasks(), steps, batch(), gates(), rank()}, "x0, steps, projection_index: the activations of all tasks");
  values_of({tasks(), projection_index.size(1), gates(), columns()}, "projection_index: the projections of all tasks");
}

void LowRankArguments::check_backward(const Tensor& grad, const Tensor& activations, int64_t needs) const {
  check_gradient(grad, needs, need_inputs | need_projections);
  check_activations(activations, activations_shape());
}

}  // namespace dcrnn_fast
