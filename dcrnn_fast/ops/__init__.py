"""The operators: one contract for all backends, which backend runs, and how a call gets there."""
