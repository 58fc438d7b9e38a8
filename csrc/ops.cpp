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

  // A model with a low-rank recurrence as one block of memory, uint8 [bytes], for this CPU. Its C columns of ids have sizes[c] ids each,
  // from row offsets[c] of table [V, E] on. Field f of F reads the columns starts[f] to starts[f + 1] - 1, starts [F + 1]: one (pooling[f]
  // = 0), or the mean (1) or the sum (2) over its ids but 0. A number n of N with Q bins becomes bias[n] + sum_q clamp((x - lower[n, q])
  // scale[n, q], 0, 1) weight[n, q]; lower and scale [N, Q], weight [N, Q, E], bias [N, E], and first_order_weight [N, Q, T] of its part of
  // the first-order term. The recurrence is that of low_rank_cross_rnn, of T tasks, or of one where all share it. towers [T, P] holds layer
  // by layer weights [in, out] and biases [out], and the head's weights [in] and bias; widths [n] are the hidden layers', multiples of 16.
  // What is not of the table's dtype is float32, or float64 beside a float64 table.
  m.def(
      "request_pack(Tensor table, Tensor sizes, Tensor offsets, Tensor starts, Tensor pooling, Tensor? lower, Tensor? scale, "
      "Tensor? weight, Tensor? bias, Tensor? first_order_weight, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, "
      "Tensor private_bias, Tensor shared_projection, Tensor private_projection, SymInt steps, str cell, Tensor towers, Tensor widths, "
      "bool first_order, bool chain) -> Tensor");

  // ids int64 or int32 [B, C], dense [B, N], the table, the first-order term's table [V, T], and the packed model -> [T, B], the logits of
  // the events. With `probabilities` these, from logits to whose first log_rate is added; and in a chain after them [T - 1, B], of each
  // event given the one before it. In float32, or float64 of a float64 table.
  m.def(
      "request(Tensor ids, Tensor? dense, Tensor table, Tensor? first_order, Tensor packed, float log_rate=0., bool probabilities=False) "
      "-> Tensor");
}
