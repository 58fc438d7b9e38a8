"""What the operators must compute, in NumPy, written from the formulas alone: it shares no code with the package. It computes in the dtype
of its arguments: float64, or long double (:data:`EXACT`) where float64 itself is judged.

With a projection, z = P u and y = Q u of r columns take the place of u.

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


def _read(h: Array, context: Array | None, projection: Array | None, gates: int) -> tuple[Array, list[Array]]:
    """u [B, K], and what the unit rows of each gate vector read: u itself, or its projection by [r, G, K]."""
    u = h if context is None else np.concatenate([context, h], axis=1)
    return u, [u if projection is None else u @ projection[:, gate].T for gate in range(gates)]


def _step(read: list[Array], weight: Array, bias: Array) -> tuple[Array, Array, Array]:
    """a, g and 1 - g [B, D] of one step of one task. ``weight`` is [D, G, columns], ``bias`` [D, G]."""
    a = read[0] @ weight[:, 0].T + bias[:, 0]
    if weight.shape[1] == 1:
        return a, np.ones_like(a), np.zeros_like(a)
    q = read[1] @ weight[:, 1].T + bias[:, 1]
    return a, _sigmoid(q), _sigmoid(-q)  # 1 - g would lose digits where g is close to 1


class _Banks:
    """The gathered rows of one call, by task and step."""

    def __init__(self, arguments: dict[str, Any]):
        self.index, self.dim = arguments["index"], arguments["x0"].shape[1]
        self.weights = gather(arguments["shared_weight"], arguments["private_weight"], self.index)
        self.biases = gather(arguments["shared_bias"], arguments["private_bias"], self.index)
        self.projections, self.rank = None, 0
        self.places = arguments.get("projection_index")
        if self.places is not None:
            self.projections = gather(arguments["shared_projection"], arguments["private_projection"], self.places)
            self.rank = self.places.shape[1] * self.dim // self.index.shape[1]

    def rows(self, step: int) -> tuple[slice, slice]:
        """The places of a step's unit rows, and of its rows of the projection."""
        at = 0 if self.index.shape[1] == self.dim else step
        return slice(at * self.dim, (at + 1) * self.dim), slice(at * self.rank, (at + 1) * self.rank)

    def of(self, task: int, step: int) -> tuple[Array, Array, Array | None]:
        rows, places = self.rows(step)
        return self.weights[task, rows], self.biases[task, rows], None if self.projections is None else self.projections[task, places]


@np.errstate(all="ignore")
def cross_rnn(
    x0: Array, shared_weight: Array, shared_bias: Array, private_weight: Array, private_bias: Array, index: Array, *,
    steps: int, cell: str, context: Array | None = None, **projection: Array | None,
) -> Array:  # fmt: skip
    """All states [T, L + 1, B, D]: h_0 = x0, h_{l+1} = h_l + g * x0 * a."""
    tasks, (batch, dim) = len(index), x0.shape
    given = {"x0": x0, "shared_weight": shared_weight, "shared_bias": shared_bias, "private_weight": private_weight}
    banks = _Banks({**given, "private_bias": private_bias, "index": index, **projection})
    kinds = [array.dtype for array in (x0, banks.weights, banks.biases, banks.projections, context) if array is not None]
    states = np.zeros((tasks, steps + 1, batch, dim), np.result_type(*kinds))
    for task in range(tasks):
        h = states[task, 0] = x0
        for step in range(steps):
            weight, bias, rows = banks.of(task, step)
            _, read = _read(h, None if context is None else context[step], rows, weight.shape[1])
            a, g, _ = _step(read, weight, bias)
            h = states[task, step + 1] = h + g * x0 * a
    return states


@np.errstate(all="ignore")
def largest_sum(states: Array, arguments: dict[str, Any]) -> float:
    """The largest sum of finite magnitudes behind a value of a, of the gate or of a projection. In some order of the terms, a partial sum
    reaches it."""
    every = {
        name: value if name.endswith("index") or not isinstance(value, np.ndarray) else np.nan_to_num(np.abs(value), posinf=0)
        for name, value in arguments.items()
    }
    banks, most = _Banks(every), 0.0
    for task, step in np.ndindex(states.shape[0], states.shape[1] - 1):
        weight, bias, projection = banks.of(task, step)
        h = np.nan_to_num(np.abs(states[task, step]), posinf=0)
        _, read = _read(h, None if every["context"] is None else every["context"][step], projection, weight.shape[1])
        sums = [read[gate] @ weight[:, gate].T + bias[:, gate] for gate in range(weight.shape[1])]
        most = max(most, *(float(values.max(initial=0)) for values in (*read, *sums)))
    return most


@np.errstate(all="ignore")
def cross_rnn_backward(cotangent: Array, states: Array, arguments: dict[str, Any]) -> dict[str, Array]:
    """The gradients by the names of the arguments, from that of all states [T, L + 1, B, D]."""
    x0, index, steps, context = (arguments[name] for name in ("x0", "index", "steps", "context"))
    banks, kind = _Banks(arguments), np.result_type(cotangent, states)
    dim, gates = x0.shape[1], banks.weights.shape[2]
    d_x0, d_weights, d_biases = (np.zeros(array.shape, kind) for array in (x0, banks.weights, banks.biases))
    d_projections = None if banks.projections is None else np.zeros(banks.projections.shape, kind)
    d_context = None if context is None else np.zeros(context.shape, kind)
    for task in range(len(index)):
        d = cotangent[task, steps]
        for step in reversed(range(steps)):
            rows, places = banks.rows(step)
            weight, bias, projection = banks.of(task, step)
            u, read = _read(states[task, step], None if context is None else context[step], projection, gates)
            a, g, closed = _step(read, weight, bias)
            of_gates = [d * g * x0, d * x0 * a * g * closed][:gates]
            d_x0 += d * g * a
            d_u = np.zeros(u.shape, kind)
            for gate, of_gate in enumerate(of_gates):
                d_weights[task, rows, gate] += of_gate.T @ read[gate]
                d_biases[task, rows, gate] += of_gate.sum(0)
                d_read = of_gate @ weight[:, gate]
                if projection is None:
                    d_u = d_u + d_read
                else:
                    d_u = d_u + d_read @ projection[:, gate]
                    d_projections[task, places, gate] += d_read.T @ u
            if context is not None:
                d_context[step] += d_u[:, :-dim]
            d = d + d_u[:, -dim:] + cotangent[task, step]
        d_x0 += d
    found = {"x0": d_x0, "context": d_context}
    for name, gradient, places in (("weight", d_weights, index), ("bias", d_biases, index), ("projection", d_projections, banks.places)):
        if gradient is not None:
            num_shared, num_private = len(arguments[f"shared_{name}"]), arguments[f"private_{name}"].shape[1]
            found[f"shared_{name}"], found[f"private_{name}"] = scatter(gradient, places, num_shared, num_private)
    return {name: value for name, value in found.items() if value is not None}
