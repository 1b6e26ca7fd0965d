"""Answer over HTTP from an exported model.

python launch/serve.py --model exports/NAME-hf [--classifier exports/NAME-classifier] [--port 8000] [--limits.X value]
"""

from __future__ import annotations

from collections.abc import Sequence

from megadec.common.config import parse
from megadec.common.errors import run_main


def main(argv: Sequence[str]) -> None:
    """Arguments in, `megadec.serve.app.serve` until a signal; the address is on standard error."""
    from megadec.serve.limits import ServeOptions

    options = parse(ServeOptions, argv, description=__doc__ or "", program="launch/serve.py")
    from megadec.serve.app import serve

    serve(options)


if __name__ == "__main__":
    run_main(main)
