"""What the operators must compute, in NumPy, written from the formulas alone: it shares no code with the package. It computes in the dtype
of its arguments: float64, or long double (:data:`EXACT`) where float64 itself is judged.

Letters: T tasks, B rows, D units, L steps, C context columns, K = C + D, G = 2 vectors of a unit ("gated") or 1 ("cross"), S shared rows,
P private rows. Complex arguments give derivatives: the imaginary part of f(x + 1e-30i v) is 1e-30 times the derivative along v.
"""

from typing import Any

import numpy as np

Array = np.ndarray
EXACT = np.longdouble


def gather(shared: Array, private: Array, index: Array) -> Array:
    """[S, ...], [T, P, ...] and [T, R] to [T, R, ...]."""
    tasks, rows = index.shape
    out = np.zeros((tasks, rows, *shared.shape[1:]), np.result_type(shared, private))
    for task in range(tasks):
        for row in range(rows):
            at = index[task, row]
            out[task, row] = shared[at] if at < len(shared) else private[task, at - len(shared)]
    return out


def scatter(grad: Array, index: Array, num_shared: int, num_private: int) -> tuple[Array, Array]:
    """The gradients of the two banks from that of the gathered rows [T, R, ...]."""
    tasks, rows = index.shape
    shared = np.zeros((num_shared, *grad.shape[2:]), grad.dtype)
    private = np.zeros((tasks, num_private, *grad.shape[2:]), grad.dtype)
    for task in range(tasks):
        for row in range(rows):
            at = index[task, row]
            if at < num_shared:
                shared[at] += grad[task, row]
            else:
                private[task, at - num_shared] += grad[task, row]
    return shared, private


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def _step(h: Array, x0: Array, weight: Array, bias: Array, context: Array | None) -> tuple[Array, Array, Array, Array]:
    """One step of one task: what the unit rows read, u [B, K], and a, g and 1 - g [B, D]. ``weight`` is [D, G, K], ``bias`` [D, G]."""
    u = h if context is None else np.concatenate([context, h], axis=1)
    a = u @ weight[:, 0].T + bias[:, 0]
    if weight.shape[1] == 1:
        return u, a, np.ones_like(a), np.zeros_like(a)
    z = u @ weight[:, 1].T + bias[:, 1]
    return u, a, _sigmoid(z), _sigmoid(-z)  # 1 - g would lose digits where g is close to 1


@np.errstate(all="ignore")
def cross_rnn(
    x0: Array, shared_weight: Array, shared_bias: Array, private_weight: Array, private_bias: Array, index: Array, *,
    steps: int, cell: str, context: Array | None = None,
) -> Array:  # fmt: skip
    """All states [T, L + 1, B, D]: h_0 = x0, h_{l+1} = h_l + g * x0 * a."""
    tasks, (batch, dim) = len(index), x0.shape
    weights, biases = gather(shared_weight, private_weight, index), gather(shared_bias, private_bias, index)
    kinds = [array.dtype for array in (x0, weights, biases, context) if array is not None]
    states = np.zeros((tasks, steps + 1, batch, dim), np.result_type(*kinds))
    for task in range(tasks):
        h = states[task, 0] = x0
        for step in range(steps):
            first = 0 if index.shape[1] == dim else step * dim
            rows = slice(first, first + dim)
            _, a, g, _ = _step(h, x0, weights[task, rows], biases[task, rows], None if context is None else context[step])
            h = states[task, step + 1] = h + g * x0 * a
    return states


@np.errstate(all="ignore")
def largest_sum(states: Array, arguments: dict[str, Any]) -> float:
    """The largest sum of finite magnitudes behind a value of a or of the gate. In some order of the terms, a partial sum reaches it."""
    every = {name: value if name == "index" or not isinstance(value, np.ndarray) else np.abs(value) for name, value in arguments.items()}
    weights, biases = (gather(every[f"shared_{kind}"], every[f"private_{kind}"], every["index"]) for kind in ("weight", "bias"))
    weights, biases, dim = np.nan_to_num(weights, posinf=0), np.nan_to_num(biases, posinf=0), states.shape[3]
    most = 0.0
    for task, step in np.ndindex(states.shape[0], states.shape[1] - 1):
        first = 0 if weights.shape[1] == dim else step * dim
        h = np.nan_to_num(np.abs(states[task, step]), posinf=0)
        u = h if every["context"] is None else np.concatenate([np.nan_to_num(every["context"][step], posinf=0), h], axis=1)
        for gate in range(weights.shape[2]):
            sums = u @ weights[task, first : first + dim, gate].T + biases[task, first : first + dim, gate]
            most = max(most, float(sums.max(initial=0)))
    return most


@np.errstate(all="ignore")
def cross_rnn_backward(cotangent: Array, states: Array, arguments: dict[str, Any]) -> dict[str, Array]:
    """The gradients by the names of the arguments, from that of all states [T, L + 1, B, D]."""
    x0, index, steps, context = (arguments[name] for name in ("x0", "index", "steps", "context"))
    weights, biases = (gather(arguments[f"shared_{kind}"], arguments[f"private_{kind}"], index) for kind in ("weight", "bias"))
    dim, kind = x0.shape[1], np.result_type(cotangent, states)
    d_x0, d_weights, d_biases = (np.zeros(array.shape, kind) for array in (x0, weights, biases))
    d_context = None if context is None else np.zeros(context.shape, kind)
    for task in range(len(index)):
        d = cotangent[task, steps]
        for step in reversed(range(steps)):
            first = 0 if index.shape[1] == dim else step * dim
            rows = slice(first, first + dim)
            weight, upstream = weights[task, rows], None if context is None else context[step]
            u, a, g, closed = _step(states[task, step], x0, weight, biases[task, rows], upstream)
            da = d * g * x0
            d_x0 += d * g * a
            d_weights[task, rows, 0] += da.T @ u
            d_biases[task, rows, 0] += da.sum(0)
            d_u = da @ weight[:, 0]
            if weight.shape[1] == 2:
                dq = d * x0 * a * g * closed
                d_weights[task, rows, 1] += dq.T @ u
                d_biases[task, rows, 1] += dq.sum(0)
                d_u = d_u + dq @ weight[:, 1]
            if context is not None:
                d_context[step] += d_u[:, :-dim]
            d = d + d_u[:, -dim:] + cotangent[task, step]
        d_x0 += d
    num_shared, num_private = len(arguments["shared_bias"]), arguments["private_bias"].shape[1]
    found = {"x0": d_x0, "context": d_context}
    for name, gradient in (("weight", d_weights), ("bias", d_biases)):
        found[f"shared_{name}"], found[f"private_{name}"] = scatter(gradient, index, num_shared, num_private)
    return {name: value for name, value in found.items() if value is not None}
