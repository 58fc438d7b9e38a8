"""Studies that train models to answer one question each: ``make study NAME=rank``. Their tables are in bench/results/."""
