"""Studies that train models to answer one question each: ``make study NAME=ablation``. Their tables are in bench/results/."""
