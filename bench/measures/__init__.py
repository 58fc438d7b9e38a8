"""Measurements of time and memory outside the benchmarks' grid: ``make measure NAME=requests``. Each has a file in bench/results/."""
