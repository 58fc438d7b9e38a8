"""The loop of training: a step, its loss, its optimiser, its state, when it stops and what it reports."""
