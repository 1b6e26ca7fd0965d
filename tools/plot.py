"""Draw the curves of runs: `python tools/plot.py --run runs/a runs/b --output curves.png [--x tokens]`."""

from megadec.common.errors import run_main
from megadec.engine.metrics.plot import main

if __name__ == "__main__":
    run_main(main)
