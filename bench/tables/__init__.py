"""The tables of README.md and of the pages in docs/, each from a file of bench/results/. bench/readme.py says on which page each is."""
