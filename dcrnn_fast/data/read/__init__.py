"""Reads the files of a table: CSV and Parquet into columns of numbers, texts and times, and columns derived from others."""
