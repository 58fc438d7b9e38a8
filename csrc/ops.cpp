// The schemas of dcrnn_fast's operators, declared once for all devices. Each device registers its kernels in its own files.
//
// Letters: T tasks, B rows, D units, of which the first S are shared and P = D - S a task's own, G vectors a unit (2 in gated cells, 1 in
// cross cells), C context columns, K = C + D, and W steps with weights of their own: 1 if all steps share them, else `steps`.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dcrnn_fast, m) {
  // shared [S, ...], private [T, P, ...], index int32 [T, R] -> [T, R, ...]
  m.def("param_gather(Tensor shared, Tensor private, Tensor index) -> Tensor");

  // grad [T, R, ...] -> gradients of shared [S, ...] and private [T, P, ...]
  m.def("param_gather_backward(Tensor grad, Tensor index, SymInt num_shared, SymInt num_private) -> (Tensor, Tensor)");

  // x0 [B, D], shared_weight [W, S, G, K], shared_bias [W, S, G], private_weight [T, W, P, G, K], private_bias [T, W, P, G],
  // context [steps, B, C]
  //   -> out: the last state [T, B, D], or with return_states the start state and the state after each step [T, steps + 1, B, D]
  //      activations: if they are saved a, and in gated cells g, of each step [T, steps, B, G, D], else [0]
  // allow_tf32 lets a GPU round float32 operands to tf32.
  m.def(
      "cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, SymInt steps, "
      "str cell=\"gated\", Tensor? context=None, bool return_states=False, bool allow_tf32=False, bool saved=False) "
      "-> (Tensor, Tensor)");

  // grad has the shape of the forward's first output; activations are its second, or [0] to compute them again; what follows `grad_mask`
  // are its arguments. Returns the gradients of x0, shared_weight, shared_bias, private_weight, private_bias and context. `grad_mask`
  // (enum GradMask in cell_arguments.h) says which of them are computed: the others are [0].
  m.def(
      "cross_rnn_backward(Tensor grad, Tensor activations, SymInt grad_mask, Tensor x0, Tensor shared_weight, "
      "Tensor shared_bias, Tensor private_weight, Tensor private_bias, SymInt steps, str cell, Tensor? context, bool return_states, "
      "bool allow_tf32) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // As cross_rnn with weights of rank r = M + N: shared_weight [W, S, G, r], private_weight [T, W, P, G, r],
  // shared_projection [W, M, G, K], private_projection [T, W, N, G, K]
  //   -> out, and if they are saved the activations z, and in gated cells y, of each step [T, steps, B, G, r], else [0]
  m.def(
      "low_rank_cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, "
      "Tensor shared_projection, Tensor private_projection, SymInt steps, str cell=\"gated\", Tensor? context=None, "
      "bool return_states=False, bool allow_tf32=False, bool saved=False) -> (Tensor, Tensor)");

  // As cross_rnn_backward, with the gradients of shared_projection and private_projection last.
  m.def(
      "low_rank_cross_rnn_backward(Tensor grad, Tensor activations, SymInt grad_mask, Tensor x0, Tensor shared_weight, "
      "Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor shared_projection, Tensor private_projection, "
      "SymInt steps, str cell, Tensor? context, bool return_states, bool allow_tf32) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // What follows has kernels for the CPU alone and no derivative: it is for inference.

  // ids int64 or int32 [B, F], column f in [0, sizes[f]), table [V, E], sizes and offsets int64 [F], and of N numbers with Q bins each
  // dense [B, N], lower and scale [N, Q], weight [N, Q, E], bias [N, E], which are float32, or float64 beside a float64 table
  //   -> [B, (F + N) E]: side by side, the rows offsets[f] + ids[:, f] of the table, and
  //      bias[n] + sum_q clamp((dense[:, n] - lower[n, q]) scale[n, q], 0, 1) weight[n, q].
  // With row [K E] and places int64 [F + N] in [0, K) -> [B, K E]: copies of row, in which these F + N blocks of E values lie at their
  // places.
  // And with first_order [V, T] and, where there are numbers, first_order_weight [N, Q, T] -> float64 [B, T], the sum over fields and
  // numbers of the same rows of first_order and the same parts of first_order_weight; without -> [B, 0].
  m.def(
      "features(Tensor ids, Tensor table, Tensor sizes, Tensor offsets, Tensor? dense=None, Tensor? lower=None, Tensor? scale=None, "
      "Tensor? weight=None, Tensor? bias=None, Tensor? row=None, Tensor? places=None, Tensor? first_order=None, "
      "Tensor? first_order_weight=None) -> (Tensor, Tensor)");

  // states [T, B, D], widths int64 [n] of the hidden layers, multiples of 16, packed [T, P]: of each task layer by layer its weights
  // [in, out] and biases [out], then the head's weights [in] and bias; float32, or float64 beside float64 states
  //   -> [B, T]: the head of the last layer's relu, and a term float64 [B, T] if there is one
  m.def("towers(Tensor states, Tensor packed, Tensor widths, Tensor? term=None) -> Tensor");
}
