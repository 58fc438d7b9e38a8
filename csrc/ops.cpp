// The schemas of dcrnn_fast's operators, declared once for every device; each device's kernels are registered beside their bodies.
// Shapes are those of the design: T tasks, B rows, D units, R = D or steps * D unit rows a task, G vectors a unit (gated 2, cross 1),
// C context columns, K = C + D.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dcrnn_fast, m) {
  // shared [S, ...], private [T, P, ...], index int32 [T, R] -> [T, R, ...]
  m.def("param_gather(Tensor shared, Tensor private, Tensor index) -> Tensor");

  // grad [T, R, ...] -> gradients of shared [S, ...] and private [T, P, ...]
  m.def("param_gather_backward(Tensor grad, Tensor index, SymInt num_shared, SymInt num_private) -> (Tensor, Tensor)");

  // x0 [B, D], shared_weight [S, G, K], shared_bias [S, G], private_weight [T, P, G, K], private_bias [T, P, G], index int32 [T, R],
  // context [steps, B, C] -> [T, B, D], or [T, steps + 1, B, D] with the start state first; and, with save, what a backward would
  // otherwise compute again: a (and g after it) of every step, [T, steps, B, G, D], else [0]. allow_tf32 lets a GPU round float32's operands.
  m.def(
      "cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor index, "
      "int steps, str cell=\"gated\", Tensor? context=None, bool return_states=False, bool save=False, "
      "bool allow_tf32=False) -> (Tensor, Tensor)");

  // grad as the forward's first output, gates as its second. Gradients of x0, shared_weight, shared_bias, private_weight, private_bias and
  // context: bit i of needs asks for the i-th, and [0] stands in place of one that was not asked for. The four banks come together.
  m.def(
      "cross_rnn_backward(Tensor grad, Tensor gates, Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, "
      "Tensor private_bias, Tensor index, int steps, str cell, Tensor? context, bool return_states, int needs, bool allow_tf32=False) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
