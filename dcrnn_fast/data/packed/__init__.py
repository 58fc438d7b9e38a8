"""Packed data: memory-mapped arrays with their description, a writer and the loader of batches."""
