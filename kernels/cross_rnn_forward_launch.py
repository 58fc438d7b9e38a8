"""Launches of cross_rnn's forward: a launch for each step, or one for all steps."""

from __future__ import annotations

from torch import Tensor

from . import launch_options, tile_choice
from .cross_rnn_all_steps import cross_rnn_all_steps
from .cross_rnn_forward import cross_rnn_step
from .cross_rnn_problem import Problem
from .launch_options import divide_up, on_device_of


def forward(problem: Problem, *, keep_states: bool, keep_activations: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the states 1 to L - 1 unless the output holds them, and the activations; [0] for what is not kept."""
    p, x0 = problem.layout, problem.x0
    out = x0.new_empty(p.T, p.L + 1, p.B, p.D) if problem.return_states else x0.new_empty(p.T, p.B, p.D)
    slots = p.L - 1 if keep_states else min(2, p.L - 1)
    states = x0.new_empty(0) if problem.return_states else x0.new_empty(p.T, slots, p.B, p.D)
    activations = x0.new_empty(p.T, p.L, p.B, p.G, p.D) if keep_activations else x0.new_empty(0)
    if problem.return_states:
        out[:, 0] = x0
    if out.numel():
        buffer, slots, first_slot = (out, p.L + 1, 1) if problem.return_states else (states, max(slots, 1), 0)
        with on_device_of(x0):
            if tile_choice.schedule(problem.sizes) == "all_steps":
                _all_steps(problem, buffer, slots, first_slot, out, activations)
            else:
                for step in range(p.L):
                    read, write = ((first_slot + at) % slots * p.size for at in (step - 1, step))
                    launch_step(
                        problem, step, states=buffer, states_stride=slots * p.size, read=read, write=write, out=out,
                        activations=activations, activations_at=step * p.plane, activations_stride=p.L * p.plane,
                    )  # fmt: skip
    return out, states if keep_states and not problem.return_states else x0.new_empty(0), activations


def launch_step(
    problem: Problem,
    step: int,
    *,
    states: Tensor,
    states_stride: int,
    read: int,
    write: int,
    out: Tensor | None,
    activations: Tensor,
    activations_at: int,
    activations_stride: int,
) -> None:
    """Launch one step. It reads the state at ``states + read`` and writes the next one to ``states + write``, or the last one to ``out``.

    Without ``out`` it writes the activations alone. Strides are from task to task.
    """
    p = problem.layout
    tile = tile_choice.config("step", problem.sizes)
    save = activations.numel() > 0
    unused = states if out is None else out
    launch_options.launch(
        cross_rnn_step, (p.tiles(tile.block_b, p.D, tile.block_d), p.T),
        x0=problem.x0, states=states, context=_context(problem), out=unused, activations=activations if save else unused,
        **problem.bank_pointers(), **problem.counts(), first_row=step * p.step_rows,
        read=read, write=write, states_stride=states_stride, context_at=p.context_at(step),
        activations_at=activations_at, activations_stride=activations_stride,
        FIRST=step == 0, LAST=out is not None and step == p.L - 1 and not problem.return_states, SAVE=save, STORE=out is not None,
        HAS_CONTEXT=p.C > 0, **problem.constants(), **tile.constants(),
    )  # fmt: skip


def _all_steps(problem: Problem, states: Tensor, slots: int, first_slot: int, out: Tensor, activations: Tensor) -> None:
    p = problem.layout
    tile = tile_choice.config("all_steps", problem.sizes)
    save = activations.numel() > 0
    launch_options.launch(
        cross_rnn_all_steps, (divide_up(p.B, tile.block_b), p.T),
        x0=problem.x0, states=states, context=_context(problem), out=out, activations=activations if save else out,
        **problem.bank_pointers(), **problem.counts(), steps=p.L, rows_a_step=p.step_rows,
        slots=slots, first_slot=first_slot, states_stride=slots * p.size,
        TO_OUT=not problem.return_states, SAVE=save, HAS_CONTEXT=p.C > 0, **problem.constants(), **tile.constants(),
    )  # fmt: skip


def _context(problem: Problem) -> Tensor:
    """The context, or a tensor in its place that the kernels do not read."""
    return problem.x0 if problem.context is None else problem.context
