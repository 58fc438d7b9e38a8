"""Exports a run as one file, and reads such a file without unpickling."""
