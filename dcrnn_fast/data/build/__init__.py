"""Builds packed data from the files of a table: splits, ids, numbers, histories and labels."""
