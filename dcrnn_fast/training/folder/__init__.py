"""The run folder: its files, the weights, the checkpoints, and how each is read within bounds."""
