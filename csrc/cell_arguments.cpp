// Checks of the arguments; see cell_arguments.h.
#include "cell_arguments.h"

namespace dcrnn_fast {

void CellArguments::prepare() {
  Sizes sizes = check_inputs();
  check_weights('K', sizes);
  make_dense();
}

void LowRankArguments::prepare() {
  Sizes sizes = check_inputs();
  check_like_x0(shared_projection, "shared_projection", "WMGK", sizes);
  check_like_x0(private_projection, "private_projection", "TWNGK", sizes);
  sizes.set('r', sizes['M'] + sizes['N']);
  check(sizes['r'] > 0, "shared_projection, private_projection: got M + N = 0 rows, expected the rank r >= 1");
  check_weights('r', sizes);
  values_of({tasks(), steps, batch(), gates(), rank()}, "x0, steps, private_projection: the activations of all tasks");
  values_of({tasks(), weight_steps(), rank(), gates(), columns()}, "private_projection: the projections of all tasks");
  make_dense();
  shared_projection = dense(shared_projection, "shared_projection");
  private_projection = dense(private_projection, "private_projection");
}

Sizes CellArguments::check_inputs() const {
  check(cell == "gated" || cell == "cross", "cell='", cell, "': expected one of 'gated', 'cross'");
  check(steps >= 1, "steps=", steps, ": expected at least 1");
  check(steps <= most_steps, "steps=", steps, ": expected at most ", most_steps);
  Sizes sizes;
  sizes.set('L', steps), sizes.set('G', gates()), sizes.set('C', 0);
  check_memory(x0, "x0");
  check_floats(x0, "x0");
  sizes.check_shape(x0, "x0", "BD");
  if (context) {
    sizes.set('C', -1);
    check_like_x0(*context, "context", "LBC", sizes);
  }
  check(sizes['D'] > 0, "x0: got shape ", shape(x0), ", expected [B, D] with D >= 1");
  sizes.set('K', sizes['C'] + sizes['D']);
  return sizes;
}

void CellArguments::check_weights(char columns, Sizes& sizes) const {
  check_like_x0(shared_weight, "shared_weight", std::string("WSG") + columns, sizes);
  check_like_x0(private_weight, "private_weight", std::string("TWPG") + columns, sizes);
  check_like_x0(shared_bias, "shared_bias", "WSG", sizes);
  check_like_x0(private_bias, "private_bias", "TWPG", sizes);
  check(sizes['W'] == 1 || sizes['W'] == steps, "shared_weight: got the weights of W = ", sizes['W'],
        " steps, expected 1 (tied) or steps = ", steps, " (untied)");
  check(sizes['S'] + sizes['P'] == dim(), "shared_weight, private_weight: got S + P = ", sizes['S'], " + ", sizes['P'],
        " units, expected D = ", dim());
  values_of({tasks(), steps + 1, batch(), gates(), dim()}, "x0, steps, private_weight: the states and activations of all tasks");
  values_of({tasks(), sizes['W'], dim(), gates(), sizes[columns]}, "private_weight: the weights of all tasks");
}

void CellArguments::check_like_x0(const Tensor& tensor, const char* name, std::string_view letters, Sizes& sizes) const {
  check_memory(tensor, name);
  check_alike(tensor, name, x0, "x0");
  sizes.check_shape(tensor, name, letters);
}

void CellArguments::make_dense() {
  const bool rows_in_line = x0.stride(1) == 1 && x0.stride(0) >= dim();
  if (!rows_in_line) x0 = dense(x0, "x0");
  shared_weight = dense(shared_weight, "shared_weight"), shared_bias = dense(shared_bias, "shared_bias");
  private_weight = dense(private_weight, "private_weight"), private_bias = dense(private_bias, "private_bias");
  if (context) context = context->size(2) ? std::optional(dense(*context, "context")) : std::nullopt;
}

namespace {

bool has_shape(const Tensor& tensor, const std::vector<int64_t>& expected) {
  if (tensor.dim() != static_cast<int64_t>(expected.size())) return false;
  for (int64_t i = 0; i < tensor.dim(); ++i)
    if (tensor.size(i) != expected[i]) return false;
  return true;
}

std::string words_of(const std::vector<int64_t>& sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

void CellArguments::check_backward(const Tensor& grad, const Tensor& activations, int64_t grad_mask) const {
  check_saved(grad, activations, activations_shape(), grad_mask, grad_inputs);
}

void LowRankArguments::check_backward(const Tensor& grad, const Tensor& activations, int64_t grad_mask) const {
  check_saved(grad, activations, activations_shape(), grad_mask, grad_inputs | grad_projections);
}

void CellArguments::check_saved(const Tensor& grad, const Tensor& activations, const std::vector<int64_t>& saved, int64_t grad_mask,
                                int64_t most) const {
  check_memory(grad, "grad");
  check_alike(grad, "grad", x0, "x0");
  check(has_shape(grad, out_shape()), "grad: got shape ", shape(grad), ", expected ", words_of(out_shape()));
  check_memory(activations, "activations");
  check_alike(activations, "activations", x0, "x0");
  check(has_shape(activations, {0}) || has_shape(activations, saved), "activations: got shape ", shape(activations), ", expected ",
        words_of(saved), " or [0]");
  check(grad_mask >= 0 && grad_mask <= most, "grad_mask: got ", grad_mask, ", expected a sum of the bits of GradMask, 0 to ", most);
  check(!(grad_mask & grad_context) || has_context, "grad_mask: asks for the gradient of context, which is absent");
}

std::vector<int64_t> CellArguments::out_shape() const {
  if (return_states) return {tasks(), steps + 1, batch(), dim()};
  return {tasks(), batch(), dim()};
}

std::vector<int64_t> CellArguments::shape_of_activations(int64_t width, bool saved) const {
  if (!saved) return {0};
  return {tasks(), steps, batch(), gates(), width};
}

}  // namespace dcrnn_fast
