"""Draw the curves of runs: `python tools/plot.py --run runs/a runs/b --output curves.png [--x tokens]`."""

from __future__ import annotations

from collections.abc import Sequence

from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.engine.metrics.plot import PlotOptions, draw, read_curves


def main(argv: Sequence[str]) -> None:
    """Parse, read, draw."""
    options = parse(PlotOptions, argv, description="Draw the metrics of runs.")
    draw([read_curves(path) for path in options.run], options.output, options.x)
    print(options.output)


if __name__ == "__main__":
    run_main(main)
