"""Speed against peers and floors, and quality against baselines. `make bench` and `make quality` write bench/results/."""
