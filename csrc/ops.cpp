// The schemas of dcrnn_fast's operators, declared once for every device; each device's kernels are registered beside their bodies.
// Shapes are those of the design: T tasks, B rows, D units, R = D or steps * D unit rows a task, G vectors a unit (gated 2, cross 1),
// C context columns, K = C + D.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dcrnn_fast, m) {
  // shared [S, ...], private [T, P, ...], index int32 [T, R] -> [T, R, ...]
  m.def("param_gather(Tensor shared, Tensor private, Tensor index) -> Tensor");

  // x0 [B, D], shared_weight [S, G, K], shared_bias [S, G], private_weight [T, P, G, K], private_bias [T, P, G], index int32 [T, R],
  // context [steps, B, C] -> [T, B, D], or [T, steps + 1, B, D] with the start state first
  m.def(
      "cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor index, "
      "int steps, str cell=\"gated\", Tensor? context=None, bool return_states=False) -> Tensor");
}
