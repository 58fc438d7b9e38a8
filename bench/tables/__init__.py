"""The tables, each from a file of bench/results/. bench/pages.py says on which page each is."""
