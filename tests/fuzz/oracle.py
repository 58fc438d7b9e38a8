"""What the operators must compute, in NumPy, written from the formulas alone: it shares no code with the package. It computes in the dtype
of its arguments: float64, or long double (:data:`EXACT`) where float64 itself is judged.

With a projection, z = P u and y = Q u of r columns take the place of u.

Letters: T tasks, B rows, D units, L steps, W steps with weights of their own, C context columns, K = C + D, G = 2 vectors of a unit
("gated") or 1 ("cross"), S shared rows, P private rows. Complex arguments give derivatives: the imaginary part of f(x + 1e-30i v) is
1e-30 times the derivative along v.
"""

from typing import Any

import numpy as np

Array = np.ndarray
EXACT = np.longdouble
NAMES = ("weight", "bias", "projection")


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


def _of_tasks(shared: Array, private: Array) -> Array:
    """Each task's rows [T, W, S + P, ...] of shared [W, S, ...] and private [T, W, P, ...]."""
    return np.concatenate([np.broadcast_to(shared, (len(private), *shared.shape)), private], axis=2)


class _Cell:
    """The weights of one call, by task and step."""

    def __init__(self, arguments: dict[str, Any]):
        found = {}
        for name in NAMES:
            if arguments.get(f"shared_{name}") is not None:
                found[name] = _of_tasks(arguments[f"shared_{name}"], arguments[f"private_{name}"])
        self.rows: dict[str, Array] = found

    def of(self, task: int, step: int) -> tuple[Array, Array, Array | None]:
        """A unit's weights [D, G, columns], biases [D, G], and the projection [r, G, K]."""
        weight, bias, projection = map(self.rows.get, NAMES)
        assert weight is not None
        assert bias is not None
        at = step % weight.shape[1]
        return weight[task, at], bias[task, at], None if projection is None else projection[task, at]


@np.errstate(all="ignore")
def cross_rnn(*, x0: Array, steps: int, cell: str, context: Array | None = None, **weights: Array | None) -> Array:
    """All states [T, L + 1, B, D]: h_0 = x0, h_{l+1} = h_l + g * x0 * a."""
    of_cell, (batch, dim) = _Cell(weights), x0.shape
    kinds = [array.dtype for array in (x0, context, *of_cell.rows.values()) if array is not None]
    tasks = len(of_cell.rows["bias"])
    states = np.zeros((tasks, steps + 1, batch, dim), np.result_type(*kinds))
    for task in range(tasks):
        h = states[task, 0] = x0
        for step in range(steps):
            weight, bias, projection = of_cell.of(task, step)
            _, read = _read(h, None if context is None else context[step], projection, weight.shape[1])
            a, g, _ = _step(read, weight, bias)
            h = states[task, step + 1] = h + g * x0 * a
    return states


@np.errstate(all="ignore")
def largest_sum(states: Array, arguments: dict[str, Any]) -> float:
    """The largest sum of finite magnitudes behind a value of a, of the gate or of a projection. In some order of the terms, a partial sum
    reaches it."""
    every = {n: np.nan_to_num(np.abs(v), posinf=0) if isinstance(v, np.ndarray) else v for n, v in arguments.items()}
    of_cell, most = _Cell(every), 0.0
    for task, step in np.ndindex(states.shape[0], states.shape[1] - 1):
        weight, bias, projection = of_cell.of(task, step)
        h = np.nan_to_num(np.abs(states[task, step]), posinf=0)
        _, read = _read(h, None if every["context"] is None else every["context"][step], projection, weight.shape[1])
        sums = [read[gate] @ weight[:, gate].T + bias[:, gate] for gate in range(weight.shape[1])]
        most = max(most, *(float(values.max(initial=0)) for values in (*read, *sums)))
    return most


@np.errstate(all="ignore")
def cross_rnn_backward(cotangent: Array, states: Array, arguments: dict[str, Any]) -> dict[str, Array]:
    """The gradients by the names of the arguments, from that of all states [T, L + 1, B, D]."""
    x0, steps, context = (arguments[name] for name in ("x0", "steps", "context"))
    of_cell, kind = _Cell(arguments), np.result_type(cotangent, states)
    dim, gates = x0.shape[1], of_cell.rows["weight"].shape[3]
    d_x0 = np.zeros(x0.shape, kind)
    d_rows = {name: np.zeros(array.shape, kind) for name, array in of_cell.rows.items()}
    d_context = None if context is None else np.zeros(context.shape, kind)
    for task in range(len(of_cell.rows["bias"])):
        d = cotangent[task, steps]
        for step in reversed(range(steps)):
            weight, bias, projection = of_cell.of(task, step)
            d_weight, d_bias, d_projection = (None if of is None else of[task, step % of.shape[1]] for of in map(d_rows.get, NAMES))
            u, read = _read(states[task, step], None if context is None else context[step], projection, gates)
            a, g, closed = _step(read, weight, bias)
            of_gates = [d * g * x0, d * x0 * a * g * closed][:gates]
            d_x0 += d * g * a
            d_u = np.zeros(u.shape, kind)
            for gate, of_gate in enumerate(of_gates):
                d_weight[:, gate] += of_gate.T @ read[gate]
                d_bias[:, gate] += of_gate.sum(0)
                d_read = of_gate @ weight[:, gate]
                if projection is None:
                    d_u = d_u + d_read
                else:
                    d_u = d_u + d_read @ projection[:, gate]
                    d_projection[:, gate] += d_read.T @ u
            if context is not None:
                d_context[step] += d_u[:, :-dim]
            d = d + d_u[:, -dim:] + cotangent[task, step]
        d_x0 += d
    found = {"x0": d_x0} if context is None else {"x0": d_x0, "context": d_context}
    for name, rows in d_rows.items():
        shared = arguments[f"shared_{name}"].shape[1]
        found[f"shared_{name}"], found[f"private_{name}"] = rows[:, :, :shared].sum(0), rows[:, :, shared:]
    return found
